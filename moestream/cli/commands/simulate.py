"""``moestream simulate``: replay a routing trace through cache policies.

Owns the order of things. The replay is ``traces.simulator``'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from moestream import ui
from moestream.cli.command import Command
from moestream.cli.commands.simulate_clock import Asked, replay_in_time
from moestream.cli.options.simulate import simulate_options
from moestream.cli.reports.simulate import (
    Row,
    draw,
    print_report,
    recall_as_json,
    row_as_json,
    trace_as_json,
)
from moestream.errors import BudgetError

if TYPE_CHECKING:
    from moestream.choices import LayerBudget
    from moestream.traces.format import TraceHeader
    from moestream.traces.simulator import Phase, PolicySpec, Simulator

EXAMPLES = """
moestream simulate run.route.csv.gz
moestream simulate run.route.csv.gz --policy lru,lfu,belady --budget 2000M,25%
moestream simulate run.route.csv.gz --policy decay --half-life 8,32,128 --json
moestream simulate run.route.csv.gz --clock --model demo --policy decay --machine \
  cores=8,disk=3.5G,latency=80us
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@simulate_options
def simulate(
    trace: Path,
    policies: tuple[str, ...],
    half_lives: tuple[float, ...],
    windows: tuple[int, ...] | None,
    budgets: tuple[str, ...],
    layer_budget: "LayerBudget",
    splits: tuple[float | Literal["auto"], ...],
    read_speed: int | None,
    hide_ms: float | None,
    phase: "Phase",
    warm_up: int,
    guesses: Path | None,
    prefetch_mass: float | None,
    clock: bool,
    model: str | None,
    machine: str,
    layers_ahead: tuple[int, ...],
    recall: float | None,
    as_json: bool,
    png: Path | None,
) -> None:
    """Say how often experts would be in memory, by policy and budget.

    TRACE is the routing of a run, as .route.csv or .route.csv.gz. Nothing is run but the policies:
    the answer is hit rates and bytes; with --clock, speed on a machine that need not be here.
    belady knows the future and is the bound.
    """
    from moestream.policies.configurator import ReadCost
    from moestream.streaming.budget import parse_budget
    from moestream.traces.format import read_trace
    from moestream.traces.guesses import Foresight
    from moestream.traces.simulator import Simulator

    if png:
        from moestream.cli.reports import plots

        plots.require(png)
    with ui.working("reading the trace", quiet=as_json):
        routing = read_trace(trace)
        simulator = Simulator(
            routing,
            layer_budget=layer_budget,
            phase=phase,
            warm_up=warm_up,
            disk=None if read_speed is None else ReadCost(read_speed, (hide_ms or 0.0) / 1e3),
            foresight=Foresight(routing, read_trace(guesses), prefetch_mass) if guesses else None,
        )
    header = simulator.header
    amounts = [(text, parse_budget(text, header.total_bytes)) for text in budgets]
    _require_room(amounts, min(header.expert_bytes.values()))
    if clock and model is not None:
        asked = Asked(trace, routing, guesses, model, machine, recall, warm_up, layer_budget)
        specs = _specs(policies, half_lives, windows, splits)
        replay_in_time(asked, specs, amounts, layers_ahead, as_json=as_json)
        return
    if layer_budget == "global":
        _warn_below_floor(amounts, header)
    drawn = (*policies, "belady") if png and "belady" not in policies else policies
    rows = _replay(simulator, _specs(drawn, half_lives, windows, splits), amounts, quiet=as_json)
    if png:
        draw(png, trace.name, rows)
    if as_json:
        results = [row_as_json(row, layer_budget) for row in rows]
        told = {"trace": trace_as_json(trace, simulator), "recall": recall_as_json(simulator)}
        ui.print_json({**told, "results": results})
    else:
        print_report(trace, simulator, rows)


def _require_room(amounts: Sequence[tuple[str, int]], expert_bytes: int) -> None:
    """Refuse budgets that hold no expert.

    Raises:
        BudgetError: one is of that kind.
    """
    for text, n_bytes in amounts:
        if n_bytes < expert_bytes:
            raise BudgetError(
                f"--budget {text} holds no expert: one of this trace takes "
                f"{ui.format_memory(expert_bytes)}; give an amount such as 640M, or a share such "
                "as 25%"
            )


def _specs(
    policies: Sequence[str],
    half_lives: Sequence[float],
    windows: Sequence[int] | None,
    splits: Sequence[float | Literal["auto"]],
) -> list["PolicySpec"]:
    from moestream.choices import FADING
    from moestream.traces.simulator import PolicySpec

    return [
        PolicySpec(name, half_life, window, split)
        for name in policies
        for half_life in (half_lives if name in FADING else half_lives[:1])
        for window in (windows if windows and name == "decay" else (None,))
        for split in splits
    ]


def _warn_below_floor(amounts: Sequence[tuple[str, int]], header: "TraceHeader") -> None:
    for text, n_bytes in amounts:
        if n_bytes < header.token_bytes:
            ui.warning(
                f"{text} is less than one token's experts, {ui.format_memory(header.token_bytes)}: "
                "with one cache for all layers, lru drops each just before it is needed"
            )


def _replay(
    simulator: "Simulator",
    specs: Sequence["PolicySpec"],
    amounts: Sequence[tuple[str, int]],
    *,
    quiet: bool,
) -> list[Row]:
    rows = []
    done, total = 0, len(simulator.sets) * len(specs) * len(amounts)
    with ui.progress(quiet=quiet) as progress:

        def report(n_sets: int) -> None:
            nonlocal done
            done += n_sets
            progress("replaying", done, total)

        for spec in specs:
            for text, n_bytes in amounts:
                rows.append((spec, text, n_bytes, simulator.run(spec, n_bytes, progress=report)))
    return rows
