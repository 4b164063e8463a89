"""The options of ``moestream simulate --clock``, and how an option takes several values."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from moestream.choices import BOUNDS
from moestream.cli.command import option
from moestream.errors import BudgetError

_MOST_AHEAD = 16
TIMED = ("decay",)
"""The policies of a replay in time, if none are named."""


def each(parse: Callable[[str], Any]) -> Callable[..., tuple[Any, ...] | None]:
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


def several(flag: str, name: str, parse: Callable[[str], Any], **more: Any) -> Any:
    """An option that takes values between commas, given to the command as ``name``."""
    return option(flag, name, shared=False, callback=each(parse), metavar="LIST", **more)


def _layers(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_AHEAD:
        raise ValueError(f"{text!r}, expected whole numbers of 0 to {_MOST_AHEAD}")
    return int(text)


CLOCK_OPTIONS = (
    option(
        "--clock",
        is_flag=True,
        shared=False,
        section="Time",
        help="Tell speed and waiting: replay as events in time, with the live code of decisions.",
    ),
    option(
        "--model",
        shared=False,
        section="Time",
        metavar="MODEL",
        help="Whose arithmetic: its header says what a layer computes. A name or a path.",
    ),
    option(
        "--machine",
        shared=False,
        section="Time",
        default="here",
        show_default=True,
        metavar="MACHINE",
        help="here, a machine.json that plan wrote elsewhere, or a description such as "
        "cores=8,disk=3.5G,latency=80us,memory=50G (decimal).",
    ),
    several(
        "--layers-ahead",
        "layers_ahead",
        _layers,
        section="Time",
        default="0,1,2",
        show_default=True,
        help="From how many layers before a layer is guessed; 0 guesses nothing.",
    ),
    option(
        "--recall",
        shared=False,
        section="Time",
        type=click.FloatRange(0, 1),
        show_default="as measured with the demo model",
        metavar="P",
        help="Without --guesses: the share of a layer's experts that is foreseen.",
    ),
)


def check_clock(given: Mapping[str, Any]) -> None:
    """The same of a replay in time.

    Raises:
        click.UsageError: such a combination.
    """
    if given["model"] is None:
        raise click.UsageError("--clock needs --model MODEL: a trace does not say what is computed")
    if bounds := [name for name in given["policies"] if name in BOUNDS]:
        raise click.UsageError(f"--clock takes policies that can run; leave out {bounds[0]}")
    if given["guesses"] is not None and given["recall"] is not None:
        raise click.UsageError("--guesses and --recall exclude each other; pass one of them")
    for name in ("read_speed", "prefetch_mass", "png"):
        if given[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with --clock")
    if given["splits"] != (1.0,):
        raise click.UsageError("--split does not go with --clock")
