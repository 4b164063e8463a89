"""How the results of ``moestream simulate`` are shown: tables, JSON and a figure.

Owns words and layout; computes nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestream import ui

if TYPE_CHECKING:
    from moestream.traces.simulator import PolicySpec, Replay, Simulator

Row = tuple["PolicySpec", str, int, "Replay"]
"""A policy, a budget as it was given and in bytes, and what came of them."""


def print_report(trace: Path, simulator: "Simulator", rows: Sequence[Row]) -> None:
    """Write what the trace is, and a table each of hit rates and bytes."""
    header, replay = simulator.header, rows[0][3]
    shape = f"{len(header.expert_bytes)} layers, {header.num_experts} experts"
    fields = [
        ("model", header.model or "unknown"),
        ("experts", f"{shape}, {header.num_experts_per_tok} a token"),
        ("size", f"{ui.format_memory(header.total_bytes)}"),
        ("one token's", f"{ui.format_memory(header.token_bytes)}"),
        ("counted", f"{replay.tokens} tokens, {replay.lookups} lookups"),
        ("layer budget", simulator.layer_budget),
    ]
    ui.print_fields(trace.name, fields)
    _print_matrix("hit rate, %", rows, lambda r: f"{100 * r.hit_rate:.1f}")
    _print_matrix("read a token", rows, lambda r: ui.format_memory(r.bytes_read // r.tokens))
    if any(spec.split == "auto" for spec, *_ in rows):
        _print_matrix("share kept of an expert", rows, _kept)
    if simulator.disk is not None:
        _print_matrix(
            "waited a token, ms", rows, lambda r: f"{1e3 * (r.stall_s or 0) / r.tokens:.1f}"
        )
    if simulator.foresight is not None:
        _print_matrix("in memory or foreseen, %", rows, lambda r: f"{100 * r.covered_rate:.1f}")
        ui.print_table(
            "guesses",
            ["layer", ">recall, %"],
            [
                [str(layer), f"{100 * record.recall:.1f}"]
                for layer, record in simulator.foresight.recall(simulator.sets).items()
            ],
        )
    if any(replay.resident_bytes > 1.001 * n_bytes for _, _, n_bytes, replay in rows):
        ui.note("where a routed set is bigger than its share, more than the budget was resident")


def _kept(replay: "Replay") -> str:
    least, most = min(replay.splits.values()), max(replay.splits.values())
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _print_matrix(title: str, rows: Sequence[Row], cell: Callable[["Replay"], str]) -> None:
    lines: dict[str, list[str]] = {}
    for spec, _, _, replay in rows:
        lines.setdefault(spec.label, []).append(cell(replay))
    columns = ["policy", *(f">{text}" for text in dict.fromkeys(text for _, text, _, _ in rows))]
    ui.print_table(title, columns, [[label, *cells] for label, cells in lines.items()])


def draw(png: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw hit rate against budget, a line a policy."""
    from moestream.choices import BOUNDS
    from moestream.cli.reports import plots

    curves: dict[str, list[tuple[float, float]]] = {}
    for spec, _, n_bytes, replay in rows:
        curves.setdefault(spec.label, []).append((n_bytes, replay.hit_rate))
    plots.draw_hit_rates(png, title, curves, frozenset(BOUNDS))


def trace_as_json(trace: Path, simulator: "Simulator") -> dict[str, Any]:
    """What the trace is."""
    header = simulator.header
    return {
        "path": str(trace),
        "model": header.model,
        "layers": len(header.expert_bytes),
        "experts": header.num_experts,
        "experts_per_token": header.num_experts_per_tok,
        "total_bytes": header.total_bytes,
        "token_bytes": header.token_bytes,
    }


def recall_as_json(simulator: "Simulator") -> dict[int, float] | None:
    """Recall by layer, 0 to 1; None without guesses."""
    if simulator.foresight is None:
        return None
    records = simulator.foresight.recall(simulator.sets)
    return {layer: record.recall for layer, record in records.items()}


def row_as_json(row: Row, layer_budget: str) -> dict[str, Any]:
    """One policy at one budget; sizes in bytes, ``hit_rate`` 0 to 1."""
    from moestream.choices import FADING

    spec, text, n_bytes, replay = row
    return {
        "policy": spec.name,
        "half_life": spec.half_life if spec.name in FADING else None,
        "window": spec.window,
        "layer_budget": layer_budget,
        "budget": text,
        "budget_bytes": n_bytes,
        "hit_rate": replay.hit_rate,
        "tokens": replay.tokens,
        "lookups": replay.lookups,
        "hits": replay.hits,
        "bytes_read": replay.bytes_read,
        "resident_bytes": round(replay.resident_bytes),
        "split": replay.split,
        "splits": replay.splits,
        "stall_s": replay.stall_s,
        "covered_rate": None if replay.foreseen is None else replay.covered_rate,
        "foreseen": replay.foreseen,
        "wasted": replay.wasted,
    }
