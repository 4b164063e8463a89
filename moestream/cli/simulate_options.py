"""The options of ``moestream simulate``: what each takes, and which go together.

Names are repeated here, for ``--help`` is not to import NumPy; a test holds them to the policies.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from moestream.cli.command import Option
from moestream.cli.options import Body, apply
from moestream.cli.split_option import parse_split
from moestream.errors import BudgetError

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


def _option(*names: str, section: str, **kwargs: Any) -> Callable[[Body], Body]:
    return click.option(*names, cls=Option, section=section, shared=False, **kwargs)


_OPTIONS = (
    _option(
        "--policy",
        "policies",
        section="Policies",
        callback=_each(_policy),
        default="lru,lfu,decay,blend,belady",
        show_default=True,
        metavar="LIST",
        help=f"Of {', '.join(POLICIES)}.",
    ),
    _option(
        "--half-life",
        "half_lives",
        section="Policies",
        callback=_each(_half_life),
        default="32",
        show_default=True,
        metavar="LIST",
        help="Tokens in which a use loses half its weight; for decay and blend.",
    ),
    _option(
        "--window",
        "windows",
        section="Policies",
        callback=_each(_window),
        metavar="LIST",
        help="Forget uses more than this many tokens ago; for decay.  [default: none]",
    ),
    _option(
        "--budget",
        "budgets",
        section="Memory",
        callback=budgets_callback,
        default="5%,10%,25%,50%",
        show_default=True,
        metavar="LIST",
        help="For experts, as 640M or 2G (binary) or a share of all experts.",
    ),
    _option(
        "--layer-budget",
        section="Memory",
        type=click.Choice(["global", "uniform", "shallow", "adaptive"]),
        default="global",
        show_default=True,
        help="One cache; one a layer, of equal size; the first layers whole, the rest equal; or "
        "moved to the layers where it hits most.",
    ),
    _option(
        "--split",
        "splits",
        section="Memory",
        callback=_each(parse_split),
        default="1",
        show_default=True,
        metavar="LIST",
        help="Keep this share of an expert, and read the rest at each use; auto takes what stalls "
        "least and needs --read-speed.",
    ),
    _option(
        "--read-speed",
        section="Reading",
        callback=_speed,
        metavar="AMOUNT",
        help="Bytes a second, as 900M or 3G (binary): tell how long reads are waited for.",
    ),
    _option(
        "--hide-ms",
        section="Reading",
        type=click.FloatRange(0),
        metavar="MS",
        help="For so long in each layer, reads go on while something is computed.  [default: 0]",
    ),
    _option(
        "--phase",
        section="Counting",
        type=click.Choice(["decode", "all"]),
        default="decode",
        show_default=True,
        help="What is counted; prefill is replayed either way.",
    ),
    _option(
        "--warm-up",
        section="Counting",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Replay the first N tokens without counting them.",
    ),
    _option(
        "--guesses",
        section="Prefetch",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="What was guessed in the same run, by generate --trace-guesses: tell recall by layer, "
        "and what would have been in memory or foreseen.",
    ),
    _option(
        "--prefetch-mass",
        section="Prefetch",
        type=click.FloatRange(0, 1, min_open=True),
        show_default="none",
        metavar="P",
        help="Widen guesses until their probabilities reach P, as far as they are recorded.",
    ),
    _option("--json", "as_json", section="Output", is_flag=True, help="Print one JSON object."),
    _option(
        "--png",
        section="Output",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Draw hit rate against budget, with belady as the bound; needs matplotlib.",
    ),
)


def simulate_options(body: Body) -> Body:
    """Add all of them to a command, which is not reached by what does not go together."""

    @functools.wraps(body)
    def checked(**given: Any) -> None:
        _check_together(given)
        body(**given)

    return apply(_OPTIONS, checked)


def _check_together(given: Mapping[str, Any]) -> None:
    """Reject what would have no effect beside the rest, and a figure that cannot be drawn.

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
    if given["png"]:
        from moestream import plots

        plots.require()
