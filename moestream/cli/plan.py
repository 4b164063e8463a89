"""``moestream plan``: what will come of a model in this memory, before it is loaded.

Owns the options, the words of the answer, and the JSON that it is. The sums are ``forecast``'s.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, Option
from moestream.cli.options import Body, context_options, model_argument
from moestream.errors import BudgetError, ModelNotFoundError, UnsupportedModelError

if TYPE_CHECKING:
    from moestream.experts.memory import MemoryPlan
    from moestream.forecast.hits import Hits
    from moestream.forecast.machine import Disk, Machine
    from moestream.forecast.outlook import Outlook, Point
    from moestream.gguf import GGUFFile

EXAMPLES = """
moestream plan model.gguf
moestream plan model.gguf --memory 16G -c 8192
moestream plan model.gguf --budget 6G,8G,12G --trace run.route.csv.gz --json
"""


def _amount(text: str) -> int:
    from moestream.experts.budgets import parse_budget

    if "%" in text:
        raise BudgetError(f"{text!r} is no amount of memory; expected 640M or 1.5G")
    return parse_budget(text, 1)


def _amounts(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(_amount(part) for part in text.split(",")) if text else ()
    except BudgetError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _memory(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    amounts = _amounts(ctx, param, text)
    if len(amounts) > 1:
        raise click.BadParameter("one amount is expected; --budget takes several", ctx, param)
    return amounts[0] if amounts else None


def _option(*names: str, section: str, **kwargs: Any) -> Callable[[Body], Body]:
    return click.option(*names, cls=Option, section=section, **kwargs)


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@_option(
    "--memory",
    section="Memory",
    callback=_memory,
    show_default="what is free here",
    metavar="AMOUNT",
    help="Memory of the machine to plan for, as 16G (binary); some is left to the system.",
)
@_option(
    "--budget",
    "budgets",
    section="Memory",
    callback=_amounts,
    metavar="AMOUNT,...",
    help="Say how fast it is at these budgets, instead of at some that hold a part of the experts.",
)
@_option(
    "--trace",
    section="Speed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take hit rates from the routing of a run of yours, instead of from models measured "
    "before.",
)
@_option(
    "--measure",
    section="Speed",
    is_flag=True,
    help="Measure this machine anew; otherwise it is measured once.",
)
@_option("--json", "as_json", section="Output", is_flag=True, help="Print one JSON object.")
@context_options
def plan(
    model: str,
    memory: int | None,
    budgets: tuple[int, ...],
    trace: Path | None,
    measure: bool,
    as_json: bool,
    context_length: int | None,
    cache_type_k: Any,
    cache_type_v: Any,
) -> None:
    """Say whether a model will run here and how fast, before it is loaded.

    MODEL is a name from models.toml or a path to a .gguf file; the default is demo. Only the
    header is read, and experts here and there to see how fast the disk is. Speeds are of decoding
    with the context full and the page cache cold.
    """
    from moestream.forecast.demand import read_demand
    from moestream.forecast.machine import known_machine
    from moestream.forecast.outlook import look_ahead
    from moestream.gguf import GGUFFile
    from moestream.models import ModelConfig
    from moestream.summary import unsupported_reason

    with GGUFFile.open(_find(model)) as file:
        if reason := unsupported_reason(file):
            raise UnsupportedModelError(f"{file.path} cannot run here: {reason}")
        context = context_length or min(ModelConfig.from_gguf(file).context_length, 8192)
        demand = read_demand(file, cache_type_k, cache_type_v)
        divided = _divide(file, demand.num_experts_per_tok, context * demand.kv_bytes, memory)
        hits = _hits(trace, demand.num_experts)
        with ui.progress(quiet=as_json) as progress:
            machine, disk = known_machine(
                file,
                {*demand.dense_bytes, *demand.expert_bytes},
                anew=measure,
                step=lambda name: progress(name, 0, 1),
            )
        outlook = look_ahead(
            divided,
            demand,
            machine,
            disk,
            hits,
            context=context,
            halved_cache="q8_0" in (cache_type_k, cache_type_v),
            budgets=budgets,
        )
    if as_json:
        ui.print_json(_as_json(model, context, outlook, machine, disk, hits))
    else:
        _print(file, context, outlook, machine, disk, hits)


def _find(model: str) -> Path:
    """The file of a model that is here: nothing is fetched or built to plan for it."""
    from moestream.catalog import catalog, resolve
    from moestream.demo import demo_path

    if model in catalog() and not demo_path().exists():
        raise ModelNotFoundError(
            f"{model} is not here yet, and its header is what a plan goes by; "
            f"get it with: moestream inspect {model}"
        )
    return resolve(model)


def _divide(file: "GGUFFile", chosen: int, kv_bytes: int, memory: int | None) -> "MemoryPlan":
    """Divide what ``--budget auto`` comes to, here or in so much memory."""
    from moestream.experts.memory import Memory, process_memory
    from moestream.layers.streaming import plan_model

    there: Memory | None = None if memory is None else Memory(memory, memory, "--memory")
    return plan_model(
        "auto",
        file,
        num_experts_per_tok=chosen,
        kv_bytes=kv_bytes,
        process_bytes=process_memory(),
        memory=there,
    )


def _hits(trace: Path | None, num_experts: int) -> "Hits":
    from moestream.forecast.hits import Hits, curve_of_trace, default_hits

    return default_hits(num_experts) if trace is None else Hits(curve_of_trace(trace))


def _print(
    file: "GGUFFile",
    context: int,
    outlook: "Outlook",
    machine: "Machine",
    disk: "Disk | None",
    hits: "Hits",
) -> None:
    divided = outlook.chosen.plan
    memory, experts = ui.format_memory, divided.total_expert_bytes
    ui.print_fields(
        file.path.name,
        [
            ("dense weights", memory(divided.dense_bytes)),
            ("experts", memory(experts) if experts else "none"),
            *([("experts of one token", memory(divided.floor_bytes))] if experts else []),
            ("KV cache", f"{memory(divided.kv_bytes)} for {context} tokens"),
            ("process and buffers", memory(divided.process_bytes)),
            ("least budget of use", memory(outlook.floor_budget_bytes)),
        ],
    )
    speed = f"{memory(machine.memory_bytes_per_s)}/s"
    ui.print_fields(
        "this machine",
        [
            ("memory", f"{speed}, measured {machine.measured}"),
            *([] if disk is None else [("disk", _disk_told(disk))]),
            *([("hit rates", f"as of {hits.expected.source}")] if experts else []),
        ],
    )
    columns = ("budget", ">experts here", ">hits", ">read a token", ">tok/s", ">sure of", "")
    rows = [_cells(point, point is outlook.chosen) for point in outlook.points]
    ui.print_table("speed", columns, rows)
    ui.print_fields(
        "verdict",
        [
            *([("give", " ".join(outlook.flags))] if outlook.flags else []),
            ("in a line", verdict(outlook)),
        ],
    )


def _disk_told(disk: "Disk") -> str:
    speed = ui.format_memory(disk.bytes_per_s)
    return f"{speed}/s, {1e3 * disk.latency_s:.2f} ms before a read begins"


def _cells(point: "Point", chosen: bool) -> tuple[str, ...]:
    speed = point.forecast
    return (
        f"{point.plan.budget_bytes / (1 << 20):.0f}M",
        f"{point.share:.0%}",
        "" if speed.hit_rate is None else f"{speed.hit_rate:.0%}",
        "" if speed.hit_rate is None else ui.format_memory(speed.read_bytes),
        _speed(speed.tps),
        f"{_speed(speed.low_tps)} to {_speed(speed.high_tps)}",
        "what auto comes to" if chosen else "",
    )


def _speed(tps: float) -> str:
    """Two digits or more, as many as a forecast is good for."""
    return f"{tps:.0f}" if tps >= 9.95 else f"{tps:.1f}" if tps >= 0.95 else f"{tps:.2f}"


def verdict(outlook: "Outlook") -> str:
    """What to expect, in one line."""
    point, divided = outlook.chosen, outlook.chosen.plan
    speed = point.forecast
    budget, floor = map(ui.format_memory, (divided.budget_bytes, outlook.floor_budget_bytes))
    tps, low, high = map(_speed, (speed.tps, speed.low_tps, speed.high_tps))
    told = f"about {tps} tok/s ({low} to {high})"
    if outlook.case == "fits":
        return f"it fits in {budget}: {told}"
    if outlook.case == "streams":
        return f"it streams within {budget}, {point.share:.0%} of its experts in memory: {told}"
    if outlook.case == "below the floor":
        return (
            f"{budget} is less than the {floor} that are of use, so nearly every expert is read "
            f"from disk: {told}"
        )
    return f"{budget} is too little: all but the experts needs more; it takes {floor} or more"


def _as_json(
    model: str,
    context: int,
    outlook: "Outlook",
    machine: "Machine",
    disk: "Disk | None",
    hits: "Hits",
) -> dict[str, Any]:
    divided = outlook.chosen.plan
    return {
        "model": model,
        "context_length": context,
        "dense_bytes": divided.dense_bytes,
        "expert_bytes": divided.total_expert_bytes,
        "expert_bytes_per_token": divided.floor_bytes,
        "kv_bytes": divided.kv_bytes,
        "process_bytes": divided.process_bytes,
        "floor_budget_bytes": outlook.floor_budget_bytes,
        "suggested": {"budget_bytes": divided.budget_bytes, "flags": list(outlook.flags)},
        "case": outlook.case,
        "verdict": verdict(outlook),
        "budgets": [_point_as_json(point) for point in outlook.points],
        "hit_rates_from": hits.expected.source,
        "machine": asdict(machine) | {"disks": None},
        "disk": None if disk is None else asdict(disk),
    }


def _point_as_json(point: "Point") -> dict[str, Any]:
    return {
        "budget_bytes": point.plan.budget_bytes,
        "experts_bytes": point.plan.experts_bytes,
        "experts_share": point.share,
        **asdict(point.forecast),
    }
