"""What the commands take that write a model's text: how long it is, and what is told beside it."""

import functools
from typing import Any

import click

from moestream.cli.command import Option
from moestream.cli.options import Body, apply
from moestream.cli.prompt import require_text


def output_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``max_tokens``, ``stop``, ``quiet`` and ``verbose``.

    ``max_tokens`` is None where there is no limit.
    """

    @functools.wraps(body)
    def with_output(
        *args: Any, predict: int, stop: tuple[str, ...], quiet: bool, verbose: bool, **kwargs: Any
    ) -> None:
        for text in stop:
            require_text(text, "--stop")
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other; pass one of them")
        max_tokens = None if predict < 0 else predict
        body(*args, max_tokens=max_tokens, stop=stop, quiet=quiet, verbose=verbose, **kwargs)

    return apply(_OUTPUT_OPTIONS, with_output)


def _option(*names: str, **kwargs: Any) -> Any:
    return click.option(*names, cls=Option, section="Output", **kwargs)


_OUTPUT_OPTIONS = (
    _option(
        "-n",
        "--predict",
        "--n-predict",
        "predict",
        type=click.IntRange(min=-2),
        default=-1,
        show_default=True,
        metavar="N",
        help="Tokens of an answer at most; -1 goes on to the model's end or a full context.",
    ),
    _option(
        "--stop",
        "-r",
        "--reverse-prompt",
        "stop",
        multiple=True,
        metavar="TEXT",
        help="End an answer before this text appears; may be given several times.",
    ),
    _option("-q", "--quiet", is_flag=True, help="Print answers and errors alone."),
    _option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Tell how memory is divided and experts are streamed.",
    ),
)
