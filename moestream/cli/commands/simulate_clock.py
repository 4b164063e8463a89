"""``moestream simulate --clock``: the same replay as events in time.

Owns what is put together for it. The clock is ``traces.clock``'s, the arithmetic ``forecast``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moestream import ui
from moestream.cli.opening import open_header
from moestream.cli.reports.clock import ClockRow, print_clock, rows_as_json
from moestream.errors import TraceError

if TYPE_CHECKING:
    from moestream.choices import LayerBudget
    from moestream.forecast.demand import Demand
    from moestream.forecast.machines import Described
    from moestream.traces.clock.foretold import Foretell
    from moestream.traces.clock.machine import ClockDisk, Work
    from moestream.traces.clock.replay import Setting, Timing
    from moestream.traces.format import Trace
    from moestream.traces.simulator import PolicySpec


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be replayed, and as if on what."""

    path: Path
    trace: "Trace"
    guesses: Path | None
    model: str
    machine: str
    recall: float | None
    warm_up: int
    layer_budget: "LayerBudget"


def replay_in_time(
    asked: Asked,
    specs: Sequence["PolicySpec"],
    amounts: Sequence[tuple[str, int]],
    layers_ahead: Sequence[int],
    *,
    as_json: bool,
) -> None:
    """Replay every policy at every budget with every number of layers ahead, and report.

    Raises:
        TraceError: the model is another one than was traced, or guesses are not of that run.
        BudgetError: no machine is described so.
    """
    from moestream.forecast.arithmetic import disk_of, work_of

    demand, machine = _look(asked, quiet=as_json)
    disk, work = disk_of(machine.disk), work_of(demand, machine.speeds, _context(asked.trace))
    foretell = _foretell(asked, max(layers_ahead))
    rows: list[ClockRow] = []
    total = len(specs) * len(amounts) * len(layers_ahead)
    with ui.progress(quiet=as_json) as progress:
        for spec in specs:
            for text, n_bytes in amounts:
                for ahead in layers_ahead:
                    progress("replaying", len(rows), total)
                    setting = _setting(asked, spec, n_bytes, ahead)
                    timing = _run(asked, setting, disk, work, foretell)
                    rows.append(ClockRow(spec, text, n_bytes, ahead, timing))
    if as_json:
        ui.print_json(rows_as_json(asked.path, machine, disk, work, rows))
    else:
        print_clock(asked.path, machine, asked.trace.header, work, rows)


def _look(asked: Asked, *, quiet: bool) -> tuple["Demand", "Described"]:
    """What the model asks for, and what the machine gives."""
    from moestream.forecast.demand import read_demand
    from moestream.forecast.machines import machine_of
    from moestream.models import used_names

    header = asked.trace.header
    with open_header(asked.model, build=False, quiet=quiet) as file:
        file.restrict(used_names(file, 0))
        demand = read_demand(file)
        shape = (len(header.expert_bytes), header.num_experts)
        if (demand.num_moe_layers, demand.num_experts) != shape:
            raise TraceError(
                f"{asked.path} is of {shape[0]} layers of {shape[1]} experts, and {asked.model} "
                f"has {demand.num_moe_layers} of {demand.num_experts}; give the model of the trace"
            )
        types = {*demand.dense_bytes, *demand.expert_bytes}
        with ui.progress(quiet=quiet) as progress:
            machine = machine_of(asked.machine, file, types, step=lambda name: progress(name, 0, 1))
    return demand, machine


def _context(trace: "Trace") -> int:
    """Tokens that one of the trace sees on average."""
    from moestream.traces.format import DECODE

    steps = trace.rows["step"][trace.rows["phase"] == DECODE]
    return int(steps.mean()) if len(steps) else 0


def _foretell(asked: Asked, most: int) -> "Foretell":
    from moestream.traces.clock.foretold import MEASURED, Drawn, Recorded
    from moestream.traces.format import read_trace

    if asked.guesses is not None:
        return Recorded(asked.trace, read_trace(asked.guesses), most)
    recalls = MEASURED if asked.recall is None else [[asked.recall]] * most
    # Farther than was measured, guesses are as good as the farthest of these.
    farther = [recalls[-1]] * max(most - len(recalls), 0) if most else []
    return Drawn([*recalls, *farther], asked.trace.header.num_experts)


def _setting(asked: Asked, spec: "PolicySpec", n_bytes: int, ahead: int) -> "Setting":
    from moestream.streaming.build import policy_factory
    from moestream.streaming.options import StreamingOptions
    from moestream.traces.clock.replay import Setting

    header = asked.trace.header
    options = StreamingOptions(policy=spec.name, half_life=spec.half_life, window=spec.window)
    return Setting(
        header.expert_bytes,
        header.num_experts,
        header.num_experts_per_tok,
        policy_factory(options),
        n_bytes,
        ahead,
        asked.layer_budget,
    )


def _run(
    asked: Asked, setting: "Setting", disk: "ClockDisk", work: "Work", foretell: "Foretell"
) -> "Timing":
    from moestream.traces.clock.replay import Replay
    from moestream.traces.clock.turns import passes_of

    replay = Replay(setting, disk, work, foretell if setting.layers_ahead else None)
    return replay.run(passes_of(asked.trace), asked.warm_up)
