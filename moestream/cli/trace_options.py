"""The options of ``generate`` that trace more than routing."""

from pathlib import Path

import click

from moestream.cli.command import Option
from moestream.cli.options import Body, apply

_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def trace_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``trace_guesses`` and ``trace_cache``."""
    return apply(_OPTIONS, body)


_OPTIONS = (
    click.option(
        "--trace-guesses",
        cls=Option,
        section="Streaming",
        type=_FILE,
        help="Write what each layer would guess of the next one's routing, for simulate --guesses.",
    ),
    click.option(
        "--trace-cache",
        cls=Option,
        section="Streaming",
        type=_FILE,
        help="Write which experts were in memory whenever a layer asked for some.",
    ),
)
