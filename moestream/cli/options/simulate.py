"""The options of ``moestream simulate``: what each takes, and which go together."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from moestream.choices import BOUNDS, LAYER_BUDGETS, POLICIES
from moestream.cli.command import Body, apply, file_option, option
from moestream.cli.options.output import json_option
from moestream.cli.options.simulate_clock import CLOCK_OPTIONS, TIMED, check_clock, each, several
from moestream.declare import declared
from moestream.errors import BudgetError
from moestream.streaming.options import StreamingOptions

_MANY = 1 << 40
_NAMES = (*POLICIES, *BOUNDS)
_LIVE = declared(StreamingOptions)
"""Options of a run that are simulated for several values."""


def _policy(text: str) -> str:
    if text not in _NAMES:
        raise ValueError(f"{text!r}, expected some of {', '.join(_NAMES)}")
    return text


def _speed(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    from moestream.streaming.budget import parse_budget

    if text is None:
        return None
    try:
        return parse_budget(text, 0)
    except BudgetError:
        raise click.BadParameter(f"{text!r} is no speed; expected 900M or 3G", ctx, param) from None


def _budget(text: str) -> str:
    from moestream.streaming.budget import parse_budget

    if text.endswith("%") and parse_budget(text, _MANY) > _MANY:
        raise BudgetError(f"{text} is more than all experts; expected a share of up to 100%")
    parse_budget(text, _MANY)
    return text


budgets_callback = each(_budget)
"""Of an option that takes several budgets."""


_OPTIONS = (
    several(
        "--policy",
        "policies",
        _policy,
        section="Policies",
        default="lru,lfu,decay,blend,belady",
        help=f"Of {', '.join(_NAMES)}.",
    ),
    several(
        "--half-life",
        "half_lives",
        _LIVE["half_life"].option.parse,
        section="Policies",
        default="32",
        help="Tokens in which a use loses half its weight; for decay and blend.",
    ),
    several(
        "--window",
        "windows",
        _LIVE["window"].option.parse,
        section="Policies",
        help="Forget uses more than this many tokens ago; for decay.  [default: none]",
    ),
    several(
        "--budget",
        "budgets",
        _budget,
        section="Memory",
        default="5%,10%,25%,50%",
        help="For experts, as 640M or 2G (binary) or a share of all experts.",
    ),
    option(
        "--layer-budget",
        shared=False,
        section="Memory",
        type=click.Choice(LAYER_BUDGETS),
        default="global",
        help="One cache; one a layer, of equal size; the first layers whole, the rest equal; or "
        "moved to the layers where it hits most.",
    ),
    several(
        "--split",
        "splits",
        _LIVE["split"].option.parse,
        section="Memory",
        default="1",
        help="Keep this share of an expert, and read the rest at each use; auto takes what stalls "
        "least and needs --read-speed.",
    ),
    option(
        "--read-speed",
        shared=False,
        section="Reading",
        callback=_speed,
        metavar="AMOUNT",
        help="Bytes a second, as 900M or 3G (binary): tell how long reads are waited for.",
    ),
    option(
        "--hide-ms",
        shared=False,
        section="Reading",
        type=click.FloatRange(0),
        metavar="MS",
        help="For so long in each layer, reads go on while something is computed.  [default: 0]",
    ),
    option(
        "--phase",
        shared=False,
        section="Counting",
        type=click.Choice(["decode", "all"]),
        default="decode",
        help="What is counted; prefill is replayed either way.",
    ),
    option(
        "--warm-up",
        shared=False,
        section="Counting",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Replay the first N tokens without counting them.",
    ),
    file_option(
        "--guesses",
        shared=False,
        section="Prefetch",
        help="What was guessed in the same run, by generate --stream trace-guesses=FILE: tell "
        "recall by layer, and what would have been in memory or foreseen.",
    ),
    option(
        "--prefetch-mass",
        shared=False,
        section="Prefetch",
        type=click.FloatRange(0, 1, min_open=True),
        show_default="none",
        metavar="P",
        help="Widen guesses until their probabilities reach P, as far as they are recorded.",
    ),
    *CLOCK_OPTIONS,
    json_option,
    option(
        "--png",
        shared=False,
        section="Output",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Draw hit rate against budget, with belady as the bound; needs matplotlib.",
    ),
)


def simulate_options(body: Body) -> Body:
    """Add all of them to a command, which is not reached by what does not go together."""

    @functools.wraps(body)
    def checked(**given: Any) -> None:
        source = click.get_current_context().get_parameter_source("policies")
        if given["clock"] and source is ParameterSource.DEFAULT:
            given["policies"] = TIMED
        _check_together(given)
        body(**given)

    return apply(_OPTIONS, checked)


def _check_together(given: Mapping[str, Any]) -> None:
    """Reject what would have no effect beside the rest.

    Raises:
        click.UsageError: such a combination.
    """
    if given["windows"] and "decay" not in given["policies"]:
        raise click.UsageError("--window is for decay, which --policy does not name")
    is_auto = "auto" in given["splits"]
    if given["read_speed"] is None and (is_auto or given["hide_ms"] is not None):
        flag = "--split auto" if is_auto else "--hide-ms"
        raise click.UsageError(f"{flag} is about time; say with --read-speed how fast reads are")
    if given["prefetch_mass"] is not None and given["guesses"] is None:
        raise click.UsageError("--prefetch-mass widens guesses; pass them with --guesses")
    if given["clock"]:
        check_clock(given)
    elif given["model"] is not None or given["recall"] is not None:
        flag = "--model" if given["model"] is not None else "--recall"
        raise click.UsageError(f"{flag} is for --clock")
