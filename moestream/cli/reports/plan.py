"""What ``moestream plan`` foresees, in words and tables for a person and as JSON.

Owns words and layout; computes nothing.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from moestream import ui

if TYPE_CHECKING:
    from moestream.forecast.hits import Hits
    from moestream.forecast.outlook import Outlook, Point
    from moestream.forecast.speed import Forecast
    from moestream.gguf import GGUFHeader
    from moestream.machine.speeds import DiskSpeed, Speeds


class Known(NamedTuple):
    """What is known of a model and this machine, and foreseen of the two."""

    model: str
    file: "GGUFHeader"
    context: int
    outlook: "Outlook"
    machine: "Speeds"
    disk: "DiskSpeed | None"
    hits: "Hits"


def print_report(known: Known) -> None:
    """Write what memory goes to, what is known of the machine, the speeds and the verdict."""
    from moestream.layers.weights import table_bytes

    model, file, context, outlook, machine, disk, hits = known
    divided = outlook.chosen.plan
    memory, experts = ui.format_memory, divided.total_expert_bytes
    ui.print_fields(
        file.path.name,
        [
            ("file", _file_told(model, file)),
            ("dense weights", memory(divided.dense_bytes)),
            *([("table, read by row", memory(table))] if (table := table_bytes(file)) else []),
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
            ("memory", f"{speed}, measured {machine.measured}{_age_told(machine)}"),
            *([] if disk is None else [("disk", _disk_told(disk))]),
            *([("but", told)] if (told := busy_told(machine, disk)) else []),
            *([("hit rates", f"as of {hits.expected.source}")] if experts else []),
        ],
    )
    columns = ("budget", ">experts here", ">hits", ">read a token", ">tok/s", ">sure of", "")
    rows = [_cells(point, outlook) for point in outlook.points]
    ui.print_table("speed", columns, rows)
    _print_prompts(outlook)
    ui.print_fields(
        "verdict",
        [
            *([("give", " ".join(outlook.flags))] if outlook.flags else []),
            *([("read ahead", told)] if (told := ahead_told(outlook.chosen)) else []),
            *_verdicts(outlook),
        ],
    )


def _print_prompts(outlook: "Outlook") -> None:
    """Write the seconds to the first token, a column for each length of a prompt."""
    points = [point for point in outlook.points if point.case != "too little"]
    if not points or not points[0].prompts:
        return
    columns = ("budget", *(f">after {prompt.tokens:,} tokens" for prompt in points[0].prompts))
    rows = [
        (
            _mebibytes(point),
            *(seconds_told(prompt.low_s, prompt.high_s) for prompt in point.prompts),
        )
        for point in points
    ]
    ui.print_table("time to the first token", columns, rows)


def seconds_told(low: float, high: float) -> str:
    """A range of seconds; of minutes where it is many."""
    if high >= 180:
        return f"{low / 60:.0f} to {high / 60:.0f} min"
    return f"{low:.0f} to {high:.0f} s" if high >= 9.5 else f"{low:.1f} to {high:.1f} s"


def _file_told(model: str, file: "GGUFHeader") -> str:
    size = ui.format_memory(file.n_bytes)
    return size if _is_here(file) else f"{size}; get it with: moestream models pull {model}"


def _is_here(file: "GGUFHeader") -> bool:
    from moestream.gguf import GGUFFile

    return isinstance(file, GGUFFile)


def _disk_told(disk: "DiskSpeed") -> str:
    speed = ui.format_memory(disk.bytes_per_s)
    return f"{speed}/s, {1e3 * disk.latency_s:.2f} ms before a read begins"


def _age_told(machine: "Speeds") -> str:
    days = machine.age_days()
    if days < 1:
        return ""
    return f", {days} day{'s' if days > 1 else ''} ago (--measure measures anew)"


def busy_told(machine: "Speeds", disk: "DiskSpeed | None") -> str | None:
    """What to say where a speed was measured in a busy moment; None where none was."""
    pairs = []
    if not machine.is_steady:
        pairs.append(("memory", machine.memory_bytes_per_s, machine.again_bytes_per_s))
    if disk is not None and not disk.is_steady:
        pairs.append(("the disk", disk.bytes_per_s, disk.again_bytes_per_s))
    differ = [
        f"{name} gave {ui.format_memory(first)}/s once and {ui.format_memory(again or 0)}/s once"
        for name, first, again in pairs
    ]
    if not differ:
        return None
    return f"{' and '.join(differ)}: the machine was busy; --measure measures anew, when it is not"


def ahead_told(point: "Point") -> str | None:
    """How many layers ahead it pays to read; None where nothing is streamed."""
    layers = point.forecast.layers_ahead
    if layers is None:
        return None
    if not layers:
        return "does not pay here: less than 3 % faster"
    if layers == 1:
        return "the next layer, as by default"
    return f"{layers} layers: --stream prefetch-layers={layers}"


def _verdicts(outlook: "Outlook") -> list[tuple[str, str]]:
    floor = outlook.floor_budget_bytes
    if len(outlook.asked) < 2:
        return [("in a line", verdict(outlook.chosen, floor))]
    return [(_mebibytes(point), verdict(point, floor)) for point in outlook.asked]


def _mebibytes(point: "Point") -> str:
    return f"{point.plan.budget_bytes / (1 << 20):.0f}M"


def _cells(point: "Point", outlook: "Outlook") -> tuple[str, ...]:
    speed = point.forecast
    return (
        _mebibytes(point),
        f"{point.share:.0%}",
        "" if speed.hit_rate is None else f"{speed.hit_rate:.0%}",
        "" if speed.hit_rate is None else ui.format_memory(speed.read_bytes),
        speed_told(speed.tps),
        f"{speed_told(speed.low_tps)} to {speed_told(speed.high_tps)}",
        "auto" if point is outlook.auto else "",
    )


def speed_told(tps: float) -> str:
    """Two digits or more, as many as a forecast is good for."""
    return f"{tps:.0f}" if tps >= 9.95 else f"{tps:.1f}" if tps >= 0.95 else f"{tps:.2f}"


def speed_range(speed: "Forecast") -> str:
    """What is expected, and what it may be."""
    tps, low, high = map(speed_told, (speed.tps, speed.low_tps, speed.high_tps))
    return f"about {tps} tok/s ({low} to {high})"


def verdict(point: "Point", floor_bytes: int) -> str:
    """What to expect of a budget, in one line."""
    budget, floor = map(ui.format_memory, (point.plan.budget_bytes, floor_bytes))
    told = speed_range(point.forecast)
    if point.case == "fits":
        return f"it fits in {budget}: {told}"
    if point.case == "streams":
        return f"it streams within {budget}, {point.share:.0%} of its experts in memory: {told}"
    if point.case == "below the floor":
        return (
            f"{budget} is less than the {floor} that are of use, so nearly every expert is read "
            f"from disk: {told}"
        )
    return (
        f"{budget} is too little even for the parts that are always in memory; "
        f"it takes {floor} or more"
    )


def as_json(known: Known) -> dict[str, Any]:
    """Everything, in bytes and tokens a second."""
    from moestream.layers.weights import table_bytes

    model, file, context, outlook, machine, disk, hits = known
    divided = outlook.chosen.plan
    return {
        "model": model,
        "here": _is_here(file),
        "file_bytes": file.n_bytes,
        "context_length": context,
        "dense_bytes": divided.dense_bytes,
        "table_bytes": table_bytes(file),
        "expert_bytes": divided.total_expert_bytes,
        "expert_bytes_per_token": divided.floor_bytes,
        "kv_bytes": divided.kv_bytes,
        "process_bytes": divided.process_bytes,
        "floor_budget_bytes": outlook.floor_budget_bytes,
        "suggested": {"budget_bytes": divided.budget_bytes, "flags": list(outlook.flags)},
        "case": outlook.chosen.case,
        "verdict": verdict(outlook.chosen, outlook.floor_budget_bytes),
        "budgets": [point_as_json(point) for point in outlook.points],
        "hit_rates_from": hits.expected.source,
        "machine": asdict(machine) | {"disks": None, "age_days": machine.age_days()},
        "busy": busy_told(machine, disk),
        "disk": None if disk is None else asdict(disk),
    }


def point_as_json(point: "Point") -> dict[str, Any]:
    """One budget, and all that is foreseen of it."""
    return {
        "budget_bytes": point.plan.budget_bytes,
        "experts_bytes": point.plan.experts_bytes,
        "experts_share": point.share,
        "case": point.case,
        **asdict(point.forecast),
        "prompts": [asdict(prompt) for prompt in point.prompts],
    }
