"""``moestream simulate``: replay a routing trace through cache policies.

Owns the options and the order of things. The replay is ``experts.simulate``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moestream import ui
from moestream.cli.command import Command, Option
from moestream.cli.simulate_report import (
    Row,
    draw,
    print_report,
    recall_as_json,
    row_as_json,
    trace_as_json,
)
from moestream.errors import BudgetError

if TYPE_CHECKING:
    from moestream.experts.budgets import LayerBudget
    from moestream.experts.simulate import Phase, PolicySpec, Simulator
    from moestream.experts.trace import TraceHeader

EXAMPLES = """
moestream simulate run.route.csv.gz
moestream simulate run.route.csv.gz --policy lru,lfu,belady --budget 2000M,25%
moestream simulate run.route.csv.gz --policy decay --half-life 8,32,128 --json
"""
POLICIES = (
    *("lru", "lfu", "decay", "blend", "lcp", "lfru", "arc", "random"),
    *("belady", "belady-bypass"),
)
N = TypeVar("N", int, float)


def _each(parse: Callable[[str], Any]) -> Callable[..., tuple[Any, ...] | None]:
    """Make the callback of an option that takes values between commas, each of them once."""

    def split(
        ctx: click.Context, param: click.Parameter, text: str | None
    ) -> tuple[Any, ...] | None:
        if text is None:
            return None
        try:
            return tuple(dict.fromkeys(parse(item.strip()) for item in text.split(",")))
        except (ValueError, BudgetError) as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return split


def _policy(text: str) -> str:
    if text not in POLICIES:
        raise ValueError(f"{text!r} is not one of {', '.join(POLICIES)}.")
    return text


def _half_life(text: str) -> float:
    number = _number(float, text)
    if not 0.01 <= number <= 1e9:
        raise ValueError(f"{text!r} is not between 0.01 and 1e9 tokens.")
    return number


def _window(text: str) -> int:
    number = _number(int, text)
    if number < 1:
        raise ValueError(f"{text!r} is not a positive number of tokens.")
    return number


def _number(kind: type[N], text: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of tokens.") from None


def _split(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.01 <= share <= 1:
        raise ValueError(f"{text!r} is neither auto nor a share from 0.01 to 1.")
    return share


def _speed(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    from moestream.experts.budgets import parse_budget

    if text is None:
        return None
    try:
        return parse_budget(text, 0)
    except BudgetError:
        raise click.BadParameter(f"{text!r} is no speed; expected 900M or 3G", ctx, param) from None


def _budget(text: str) -> str:
    from moestream.experts.budgets import parse_budget

    parse_budget(text, 1 << 40)
    return text


budgets_callback = _each(_budget)
"""Of an option that takes several budgets."""


def _option(*names: str, section: str, **kwargs: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=Option, section=section, shared=False, **kwargs)


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_option(
    "--policy",
    "policies",
    section="Policies",
    callback=_each(_policy),
    default="lru,lfu,decay,blend,belady",
    show_default=True,
    metavar="LIST",
    help=f"Of {', '.join(POLICIES)}.",
)
@_option(
    "--half-life",
    "half_lives",
    section="Policies",
    callback=_each(_half_life),
    default="32",
    show_default=True,
    metavar="LIST",
    help="Tokens in which a use loses half its weight; for decay and blend.",
)
@_option(
    "--window",
    "windows",
    section="Policies",
    callback=_each(_window),
    metavar="LIST",
    help="Forget uses more than this many tokens ago; for decay.  [default: none]",
)
@_option(
    "--budget",
    "budgets",
    section="Memory",
    callback=budgets_callback,
    default="5%,10%,25%,50%",
    show_default=True,
    metavar="LIST",
    help="For experts, as 640M or 2G (binary) or a share of all experts.",
)
@_option(
    "--layer-budget",
    section="Memory",
    type=click.Choice(["global", "uniform", "shallow", "adaptive"]),
    default="global",
    show_default=True,
    help="One cache; one a layer, of equal size; the first layers whole, the rest equal; or moved "
    "to the layers where it hits most.",
)
@_option(
    "--split",
    "splits",
    section="Memory",
    callback=_each(_split),
    default="1",
    show_default=True,
    metavar="LIST",
    help="Keep this share of an expert, and read the rest at each use; auto takes what stalls "
    "least and needs --read-speed.",
)
@_option(
    "--read-speed",
    section="Reading",
    callback=_speed,
    metavar="AMOUNT",
    help="Bytes a second, as 900M or 3G (binary): tell how long reads are waited for.",
)
@_option(
    "--hide-ms",
    section="Reading",
    type=click.FloatRange(0),
    metavar="MS",
    help="For so long in each layer, reads go on while something is computed.  [default: 0]",
)
@_option(
    "--phase",
    section="Counting",
    type=click.Choice(["decode", "all"]),
    default="decode",
    show_default=True,
    help="What is counted; prefill is replayed either way.",
)
@_option(
    "--warm-up",
    section="Counting",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Replay the first N tokens without counting them.",
)
@_option(
    "--guesses",
    section="Prefetch",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What was guessed in the same run, by generate --trace-guesses: tell recall by layer, and "
    "what would have been in memory or foreseen.",
)
@_option(
    "--prefetch-mass",
    section="Prefetch",
    type=click.FloatRange(0, 1, min_open=True),
    show_default="none",
    metavar="P",
    help="Widen guesses until their probabilities reach P, as far as they are recorded.",
)
@_option("--json", "as_json", section="Output", is_flag=True, help="Print one JSON object.")
@_option(
    "--png",
    section="Output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw hit rate against budget, with belady as the bound; needs matplotlib.",
)
def simulate(
    trace: Path,
    policies: tuple[str, ...],
    half_lives: tuple[float, ...],
    windows: tuple[int, ...] | None,
    budgets: tuple[str, ...],
    layer_budget: "LayerBudget",
    splits: tuple[float | None, ...],
    read_speed: int | None,
    hide_ms: float | None,
    phase: "Phase",
    warm_up: int,
    guesses: Path | None,
    prefetch_mass: float | None,
    as_json: bool,
    png: Path | None,
) -> None:
    """Say how often experts would be in memory, by policy and budget.

    TRACE is the routing of a run, as .route.csv or .route.csv.gz. Nothing is run but the policies:
    the answer is hit rates and bytes, not speed. belady knows the future and is the bound.
    """
    _check(policies, windows, png)
    if read_speed is None and (None in splits or hide_ms is not None):
        flag = "--split auto" if None in splits else "--hide-ms"
        raise click.UsageError(f"{flag} is about time; say with --read-speed how fast reads are")
    if prefetch_mass is not None and guesses is None:
        raise click.UsageError("--prefetch-mass widens guesses; pass them with --guesses")
    from moestream.experts.budgets import parse_budget
    from moestream.experts.foresight import Foresight
    from moestream.experts.simulate import Disk, Simulator
    from moestream.experts.trace import read_trace

    with ui.working("reading the trace", quiet=as_json):
        routing = read_trace(trace)
        simulator = Simulator(
            routing,
            layer_budget=layer_budget,
            phase=phase,
            warm_up=warm_up,
            disk=None if read_speed is None else Disk(read_speed, (hide_ms or 0.0) / 1e3),
            foresight=Foresight(routing, read_trace(guesses), prefetch_mass) if guesses else None,
        )
    header = simulator.header
    amounts = [(text, parse_budget(text, header.total_bytes)) for text in budgets]
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


def _check(policies: tuple[str, ...], windows: tuple[int, ...] | None, png: Path | None) -> None:
    if windows and "decay" not in policies:
        raise click.UsageError("--window is for decay, which --policy does not name")
    if png:
        from moestream import plots

        plots.require()


def _specs(
    policies: Sequence[str],
    half_lives: Sequence[float],
    windows: Sequence[int] | None,
    splits: Sequence[float | None],
) -> list["PolicySpec"]:
    from moestream.experts.simulate import FADING, PolicySpec

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
                f"{text} is less than one token's experts, {ui.format_bytes(header.token_bytes)}: "
                "with one cache for all layers, lru drops each just before it is needed"
            )


def _replay(
    simulator: "Simulator",
    specs: Sequence["PolicySpec"],
    amounts: Sequence[tuple[str, int]],
    *,
    quiet: bool,
) -> list[Row]:
    from moestream.experts.simulate import SPLITS

    rows = []
    runs = sum(len(SPLITS) if spec.split is None else 1 for spec in specs) * len(amounts)
    done, total = 0, len(simulator.sets) * runs
    with ui.progress(quiet=quiet) as progress:

        def report(n_sets: int) -> None:
            nonlocal done
            done += n_sets
            progress("replaying", done, total)

        for spec in specs:
            for text, n_bytes in amounts:
                rows.append((spec, text, n_bytes, simulator.run(spec, n_bytes, progress=report)))
    return rows
