"""How the results of ``moestream simulate --clock`` are shown: a table, or JSON.

Owns words and layout; computes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestream import ui

if TYPE_CHECKING:
    from moestream.forecast.machines import Described
    from moestream.traces.clock.machine import ClockDisk, Work
    from moestream.traces.clock.replay import Timing
    from moestream.traces.format import TraceHeader
    from moestream.traces.simulator import PolicySpec


@dataclass(frozen=True, slots=True)
class ClockRow:
    """A policy, a budget as given and in bytes, layers ahead, and what came of them."""

    spec: "PolicySpec"
    budget: str
    n_bytes: int
    layers_ahead: int
    timing: "Timing"


def print_clock(
    trace: Path,
    machine: "Described",
    header: "TraceHeader",
    work: "Work",
    rows: Sequence[ClockRow],
) -> None:
    """Write what machine it would be, and a line for every replay."""
    layers, k = len(header.expert_bytes), header.num_experts_per_tok
    token_s = work.token_total_s(layers, k)
    expert = max(header.expert_bytes.values())
    read_s = machine.disk.latency_s + expert / machine.disk.bytes_per_s
    disk = f"{ui.format_memory(machine.disk.bytes_per_s)}/s after {_ms(machine.disk.latency_s)}"
    fields = [
        ("machine", machine.told),
        ("disk", disk),
        ("a token computes", f"{_ms(token_s)}, a layer {_ms(work.layer_s + k * work.expert_s)}"),
        ("an expert is read in", _ms(read_s)),
        ("counted", f"{rows[0].timing.tokens} tokens"),
    ]
    ui.print_fields(trace.name, fields)
    columns = ["policy", "budget", ">layers ahead", ">tok/s", ">stall ms", ">hits, %"]
    columns += [">reading hidden, %", ">read a token", ">read in vain"]
    ui.print_table("in time", columns, [_cells(row) for row in rows])


def _cells(row: ClockRow) -> list[str]:
    timing, counts = row.timing, row.timing.counts
    return [
        row.spec.label,
        row.budget,
        f"{row.layers_ahead}",
        f"{timing.tps:.1f}",
        f"{timing.stall_ms:.2f}",
        f"{100 * counts.decode.hit_rate:.1f}",
        f"{100 * timing.overlapped:.0f}",
        ui.format_memory(timing.read_bytes / timing.tokens),
        ui.format_memory(counts.wasted_bytes / timing.tokens),
    ]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def rows_as_json(
    trace: Path,
    machine: "Described",
    disk: "ClockDisk",
    work: "Work",
    rows: Sequence[ClockRow],
) -> dict[str, Any]:
    """Everything, in seconds and bytes."""
    return {
        "trace": str(trace),
        "machine": machine.told,
        "disk": asdict(disk),
        "work": asdict(work),
        "results": [_row_as_json(row) for row in rows],
    }


def _row_as_json(row: ClockRow) -> dict[str, Any]:
    timing, counts = row.timing, row.timing.counts
    return {
        "policy": row.spec.name,
        "budget": row.budget,
        "budget_bytes": row.n_bytes,
        "layers_ahead": row.layers_ahead,
        "tokens": timing.tokens,
        "tps": timing.tps,
        "seconds": timing.seconds,
        "stall_s": timing.stall_s,
        "compute_s": timing.compute_s,
        "disk_busy_s": timing.busy_s,
        "overlapped": timing.overlapped,
        "read_bytes": timing.read_bytes,
        "hit_rate": counts.decode.hit_rate,
        "cached_rate": counts.decode.cached_rate,
        "late": counts.decode.late,
        "speculative_bytes": counts.speculative_bytes,
        "useful_bytes": counts.useful_bytes,
        "wasted_bytes": counts.wasted_bytes,
    }
