"""What ``moestream plan --machines`` foresees, in words and tables for a person and as JSON.

Owns words and layout; computes nothing.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from moestream import ui
from moestream.cli.reports.plan import point_as_json, seconds_told, speed_told

if TYPE_CHECKING:
    from moestream.forecast.fleet import Fleet, Member
    from moestream.forecast.hits import Hits
    from moestream.gguf import GGUFHeader


class FleetKnown(NamedTuple):
    """What is known of a model, and foreseen of it on several machines."""

    model: str
    file: "GGUFHeader"
    context: int
    fleet: "Fleet"
    hits: "Hits"


def print_fleet(known: FleetKnown) -> None:
    """Write who has which layers, what a token and a prompt take, and the verdict."""
    fleet, count = known.fleet, len(known.fleet.members)
    columns = ("machine", ">memory", ">layers", ">always", ">experts", ">here", ">hits", ">ms", "")
    rows = [_cells(number, member) for number, member in enumerate(fleet.members)]
    ui.print_table(f"{known.file.path.name} on {count} machines", columns, rows)
    link = f"{fleet.link.bits_per_s / 1e9:g} Gbit/s, {1e3 * fleet.link.latency_s:g} ms one way"
    hops = f"{count} hops of {1e3 * fleet.hop_s:.2f} ms, {fleet.hops_share:.0%} of a token"
    together = f"about {speed_told(fleet.many_tps)} tok/s, all conversations together"
    ui.print_fields(
        "a token",
        [
            ("link", link),
            ("on the way", hops if count > 1 else "nothing: it is one machine"),
            ("one conversation", _speed_told(fleet)),
            *([(f"{count} at once", together)] if count > 1 else []),
            ("one machine alone", _alone_told(fleet)),
        ],
    )
    if fleet.prompts:
        ui.print_table(
            "time to the first token",
            ("prompt", ">all machines", ">if they took turns", ">one alone"),
            [
                (
                    f"{prompt.tokens:,} tokens",
                    seconds_told(prompt.low_s, prompt.high_s),
                    f"{prompt.in_turn_s:.1f} s",
                    seconds_told(one.low_s, one.high_s),
                )
                for prompt, one in zip(fleet.prompts, fleet.alone.prompts, strict=True)
            ],
        )
    ui.print_fields("verdict", [("in a line", verdict(fleet))])


def _cells(number: int, member: "Member") -> tuple[str, ...]:
    point, memory = member.point, ui.format_memory
    streams = point.forecast.hit_rate is not None
    return (
        str(number),
        memory(member.memory_bytes),
        f"{member.part.start} to {member.part.stop - 1}",
        memory(point.plan.other_bytes),
        memory(point.plan.total_expert_bytes),
        f"{point.share:.0%}",
        f"{point.forecast.hit_rate:.0%}" if streams else "",
        f"{1e3 / point.forecast.tps:.1f}",
        "" if point.case == "fits" else point.case,
    )


def _speed_told(fleet: "Fleet") -> str:
    low, high = speed_told(fleet.low_tps), speed_told(fleet.high_tps)
    return f"about {speed_told(fleet.tps)} tok/s ({low} to {high})"


def _alone_told(fleet: "Fleet") -> str:
    alone = fleet.alone
    if alone.case == "too little":
        return "has too little memory"
    share = "all" if alone.case == "fits" else f"{alone.share:.0%}"
    return f"about {speed_told(alone.forecast.tps)} tok/s, {share} of the experts in memory"


def verdict(fleet: "Fleet") -> str:
    """What to expect, in one line."""
    poor = [n for n, each in enumerate(fleet.members) if each.point.case == "too little"]
    if poor:
        point = fleet.members[poor[0]].point
        needs = ui.format_memory(point.plan.other_bytes)
        return (
            f"machine {poor[0]} has too little memory: {needs} of its layers are always in it, and "
            f"it may take {ui.format_memory(point.plan.budget_bytes)}. Take another machine in, or "
            "a shorter context with -c"
        )
    told = _speed_told(fleet)
    streaming = [each for each in fleet.members if each.point.case != "fits"]
    how = "it streams" if streaming else "it fits"
    if fleet.alone.case == "too little":
        return f"{how}: {told}; on one machine it does not run"
    ratio = fleet.tps / fleet.alone.forecast.tps
    return f"{how}: {told}, {ratio:.1f} times as fast as on one machine"


def as_json(known: FleetKnown) -> dict[str, Any]:
    """Everything, in bytes, seconds and tokens a second."""
    fleet = known.fleet
    return {
        "model": known.model,
        "file_bytes": known.file.n_bytes,
        "context_length": known.context,
        "link": asdict(fleet.link),
        "hop_s": fleet.hop_s,
        "hops_share": fleet.hops_share,
        "tps": fleet.tps,
        "low_tps": fleet.low_tps,
        "high_tps": fleet.high_tps,
        "many_tps": fleet.many_tps,
        "prompts": [asdict(prompt) for prompt in fleet.prompts],
        "machines": [_member_as_json(member) for member in fleet.members],
        "alone": point_as_json(fleet.alone),
        "hit_rates_from": known.hits.expected.source,
        "verdict": verdict(fleet),
    }


def _member_as_json(member: "Member") -> dict[str, Any]:
    return {
        "memory_bytes": member.memory_bytes,
        "layers": [member.part.start, member.part.stop],
        "resident_bytes": member.point.plan.other_bytes,
        "expert_bytes": member.point.plan.total_expert_bytes,
        **point_as_json(member.point),
    }
