"""``moestream doctor``: what this machine is, what will be used of it, what to change.

Owns the words and the advice. The facts come from ``machine``.
"""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import CONFIG_ERROR, Command, option
from moestream.cli.commands.version import build_details, instruction_sets, library_version
from moestream.cli.options.hosts import hosts_options
from moestream.cli.options.output import json_option
from moestream.cli.visiting import look_at_hosts

if TYPE_CHECKING:
    from moestream.machine.facts import Machine

EXAMPLES = """
moestream doctor
moestream doctor --json | jq .advice
moestream doctor --hosts 10.0.0.1,10.0.0.2 --model demo
"""
Advice = list[tuple[str, str]]
_SLOW_DISK = 0.5e9
"""Bytes a second below which streaming is a wait: a token of a 30B model reads about 1 GB."""


@click.command(cls=Command, examples=EXAMPLES, needs_config=False)
@option(
    "--measure/--no-measure",
    default=True,
    help="Read from the disk of the models for half a second.",
)
@hosts_options
@json_option
def doctor(measure: bool, hosts: tuple[str, ...], as_json: bool, **asked: Any) -> None:
    """Say what this machine is, what moestream will use, and what to change.

    The disk is measured with the largest model that is here, or with a file of 128 MiB, which is
    deleted again. With --hosts, several machines are looked at, and how they talk.
    """
    if hosts and not measure:
        raise click.UsageError("--no-measure is for this machine's disk; leave it or --hosts out")
    if hosts:
        look_at_hosts(hosts, as_json=as_json, **asked)
        return
    from moestream.machine.facts import look

    with ui.working("measuring the disk" if measure else "looking"):
        machine = look(measure=measure)
    advice = [*_wrong_files(), *_advice(machine)]
    if as_json:
        ui.print_json(_as_json(machine, advice))
        return
    ui.print_fields("machine", _machine_fields(machine))
    ui.print_fields("moestream", _program_fields())
    ui.print_fields("will be used", _used_fields(machine))
    if not advice:
        ui.print_line("nothing to change")
        return
    ui.print_fields("to change", [(f"{n}.", text) for n, (text, _) in enumerate(advice, 1)])
    for number, (_, command) in enumerate(advice, 1):
        if command:
            ui.print_line(f"  {number}. {command}")


def _wrong_files() -> Advice:
    """What is wrong with the files that a person writes: all else stops at it."""
    from moestream.catalog import catalog
    from moestream.errors import CatalogError

    found = click.get_current_context().meta.get(CONFIG_ERROR)
    wrong = [str(found)] if found else []
    try:
        catalog()
    except CatalogError as error:
        wrong.append(str(error))
    return [(f"{error}; edit the file, or remove it", "") for error in wrong]


def _machine_fields(machine: "Machine") -> list[tuple[str, str]]:
    memory, disk = machine.memory, machine.models
    limits = f" (the limit of {memory.limited_by})" if memory.limited_by != "the machine" else ""
    locked = machine.locked_limit_bytes
    speed = (
        f"reads {ui.format_memory(int(disk.bandwidth))}/s"
        if disk.bandwidth is not None
        else f"speed unknown: {disk.error}"
    )
    return [
        ("system", machine.system),
        ("processor", machine.processor),
        ("cores", f"{machine.physical_cores or 'unknown'}, {machine.usable_cores} threads usable"),
        ("instruction sets", ", ".join(machine.cpu_flags) or "unknown"),
        (
            "memory",
            f"{ui.format_memory(memory.total_bytes)}{limits}, "
            f"{ui.format_memory(memory.available_bytes)} free",
        ),
        ("swap", ui.format_memory(machine.swap_bytes)),
        *(
            [
                (
                    "GPU may wire",
                    f"{machine.wired_limit_mb} MB (iogpu.wired_limit_mb; 0: macOS decides)",
                )
            ]
            if machine.wired_limit_mb is not None
            else []
        ),
        ("may lock", "all of it" if locked is None else ui.format_memory(locked)),
        ("models", f"{disk.folder}"),
        ("their disk", f"{ui.format_bytes(disk.free_bytes)} free, {speed}"),
        ("config", f"{machine.config} (config.toml, models.toml)"),
    ]


def _program_fields() -> list[tuple[str, str]]:
    token = "set" if os.environ.get("HF_TOKEN") else "not set"
    offline = ", HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else ""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return [
        *build_details(),
        ("hub", f"{endpoint}, HF_TOKEN {token}{offline}"),
        ("MLX", _mlx_told()),
    ]


def _mlx_facts() -> dict[str, Any] | None:
    """Version and device of MLX; None where it is not installed, or cannot be loaded."""
    from moestream.errors import UnsupportedModelError

    version = library_version("mlx")
    if version is None:
        return None
    try:
        from moestream.backends.mlx_core import device_facts
    except UnsupportedModelError:
        return None
    return {"version": version, **device_facts()}


def _mlx_told() -> str:
    facts = _mlx_facts()
    if facts is None:
        return 'not installed (pip install ".[mlx]" in the checkout)'
    if facts["cuda"]:
        return f"{facts['version']}, CUDA on {facts['device']}: to test it; --backend cpu is faster"
    if not facts["metal"]:
        return f"{facts['version']}, no Metal: --backend mlx runs on the CPU, slowly, to test it"
    most = ui.format_memory(facts["recommended_bytes"])
    return f"{facts['version']}, Metal on {facts['device']}, {most} recommended for the GPU"


def _used_fields(machine: "Machine") -> list[tuple[str, str]]:
    sets = instruction_sets()
    isa = os.environ.get("MOESTREAM_ISA") or (sets[0] if sets else None)
    return [
        ("backend", _backend() if sets else "reference, which is slow"),
        *([("kernels", isa)] if isa else []),
        ("threads", str(_threads())),
        ("memory", f"{ui.format_memory(_budget_bytes(machine))} (--budget auto, now)"),
        ("reading", "measured for each model when it does not fit (--io auto)"),
    ]


def _backend() -> str:
    from moestream.backends import default_backend

    return default_backend()


def _threads() -> int:
    try:
        from moestream import _native
    except ImportError:
        return 1
    return int(_native.physical_cores())


def _budget_bytes(machine: "Machine") -> int:
    """What ``--budget auto`` would give an engine that is opened now."""
    from moestream.streaming.memory import plan_memory, process_memory

    sizes = dict.fromkeys(("dense_bytes", "kv_bytes", "floor_bytes", "total_expert_bytes"), 0)
    own = process_memory()
    return plan_memory("auto", **sizes, process_bytes=own, memory=machine.memory).budget_bytes


def _advice(machine: "Machine") -> Advice:
    """What would make things better, and the command that does it ('' where there is none)."""
    advice: Advice = []
    if not instruction_sets():
        advice.append(
            ("the kernels are not compiled: install again with a C++20 compiler", "pip install .")
        )
    locked = machine.locked_limit_bytes
    if locked is not None and locked < machine.memory.total_bytes // 2 and os.geteuid() != 0:
        advice.append(
            (
                f"only {ui.format_memory(locked)} may be locked in memory, so --stream pin=mlock "
                "cannot hold hot experts; raise the limit, then log in again",
                f"echo '{_user()} - memlock unlimited' | "
                "sudo tee /etc/security/limits.d/moestream.conf",
            )
        )
    advice += _disk_advice(machine)
    if machine.memory.total_bytes < machine.machine_bytes:
        advice.append(
            (
                f"{machine.memory.limited_by} allows "
                f"{ui.format_memory(machine.memory.total_bytes)} of the machine's "
                f"{ui.format_memory(machine.machine_bytes)}; raise it where the container starts",
                "",
            )
        )
    if machine.physical_cores and machine.usable_cores < machine.physical_cores:
        advice.append(
            (
                f"this process may run on {machine.usable_cores} of {machine.physical_cores} cores",
                f"taskset -pc 0-{(os.cpu_count() or 1) - 1} $$",
            )
        )
    return advice


def _disk_advice(machine: "Machine") -> Advice:
    disk = machine.models
    move = "export MOESTREAM_CACHE=/path/on/another/disk"
    advice: Advice = []
    if disk.bandwidth is None and disk.error != "not measured":
        advice.append((f"the disk of the models could not be measured: {disk.error}", move))
    elif disk.bandwidth is not None and disk.bandwidth < _SLOW_DISK:
        rate = ui.format_memory(int(disk.bandwidth))
        advice.append((f"a disk that reads {rate}/s makes streaming slow; use a faster one", move))
    if disk.free_bytes < 20e9:
        free = ui.format_bytes(disk.free_bytes)
        advice.append((f"{free} free is less than a 30B model takes at four bits (19 GB)", move))
    return advice


def _user() -> str:
    return os.environ.get("USER") or str(os.geteuid())


def _as_json(machine: "Machine", advice: Advice) -> dict[str, Any]:
    facts = asdict(machine)
    facts["config"] = str(machine.config)
    facts["models"]["folder"] = str(machine.models.folder)
    return {
        "machine": facts,
        "moestream": dict(_program_fields()),
        "mlx": _mlx_facts(),
        "used": {
            "backend": _backend() if instruction_sets() else "reference",
            "instruction_sets": instruction_sets(),
            "threads": _threads(),
            "budget_bytes": _budget_bytes(machine),
        },
        "advice": [{"what": text, "command": command or None} for text, command in advice],
    }
