"""What the commands take that write a model's text: how long it is, and what is told beside it."""

import functools
from collections.abc import Callable
from typing import Any

import click

from moestream.chat.settings import Settings
from moestream.chat.thinking import Thinking
from moestream.cli.command import Body, apply, be_quiet, option
from moestream.cli.options.fields import field_options
from moestream.cli.options.prompt import require_text


def output_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``max_tokens``, ``stop``, ``quiet`` and ``verbose``."""

    @functools.wraps(body)
    def with_output(*args: Any, stop: tuple[str, ...], **kwargs: Any) -> None:
        for text in stop:
            require_text(text, "--stop")
        body(*args, stop=stop, **kwargs)

    written = field_options(Settings, "Output", ("max_tokens", "stop"))
    return apply((*written, _telling), with_output)


def telling_options(quiet: str, verbose: str) -> Callable[[Body], Body]:
    """Make what adds ``quiet`` and ``verbose`` to a command, with these helps."""
    flag: dict[str, Any] = {"section": "Output", "is_flag": True}
    options = (
        option("-q", "--quiet", is_eager=True, callback=be_quiet, help=quiet, **flag),
        option("-v", "--verbose", help=verbose, **flag),
    )

    def add(body: Body) -> Body:
        @functools.wraps(body)
        def with_telling(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> None:
            if quiet and verbose:
                raise click.UsageError("--quiet and --verbose exclude each other; pass one of them")
            body(*args, quiet=quiet, verbose=verbose, **kwargs)

        return apply(options, with_telling)

    return add


_telling = telling_options(
    "Print answers and errors alone.", "Tell how memory is divided and used."
)


def shown_options(body: Body) -> Body:
    """Add how a chat shows answers, and how much a model thinks; ``body`` gets their fields."""
    shown = field_options(Settings, "Chat", ("reasoning", "context_shift"))
    return apply((*shown, *field_options(Thinking, "Chat")), body)


reasoning_option = field_options(Settings, "Output", ("reasoning",), rare=True)[0]
"""How ``generate`` shows reasoning; the body gets ``reasoning``."""
json_option = option(
    "--json", "as_json", section="Output", is_flag=True, help="Print one JSON object."
)
"""``--json``; the body gets ``as_json``."""
