"""``--prompt-cache``: how much of what was read may be kept on disk for the next run."""

from typing import TYPE_CHECKING

import click

from moestream import ui
from moestream.cli.command import Body, option
from moestream.errors import BudgetError, UnsupportedModelError

if TYPE_CHECKING:
    from moestream.engine.engine import Engine
    from moestream.prompt_cache import PromptCache

_OFF = 0
_LEAST_BYTES = 1 << 20


def _read_size(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    """Bytes; None for ``auto``."""
    from moestream.streaming.budget import parse_memory

    if text == "auto":
        return None
    if text == "off":
        return _OFF
    try:
        n_bytes = parse_memory(text, 0)
    except BudgetError as error:
        raise click.BadParameter(f"{error}; or auto, or off", ctx, param) from None
    if n_bytes < _LEAST_BYTES:
        raise click.BadParameter(f"{text!r} is too little; give 100M or more, or off", ctx, param)
    return n_bytes


def prompt_cache_option(body: Body) -> Body:
    """Add it; the body gets ``prompt_cache`` in bytes: 0 for off, None for the default."""
    return option(
        "--prompt-cache",
        rare=True,
        section="Chat",
        default="auto",
        show_default=False,
        metavar="SIZE",
        callback=_read_size,
        help="Keep what was read of prompts on disk, up to SIZE of all models, for the "
        "next run; off keeps nothing.  [default: 8G, or a tenth of the free disk]",
    )(body)


def open_prompt_cache(
    engine: "Engine", limit_bytes: int | None, *, quiet: bool
) -> "PromptCache | None":
    """Open it as the option says; None where it is off, or the backend has none by default.

    Raises:
        UnsupportedModelError: a size was given, and the backend cannot.
        StorageError: the folder cannot be made.
    """
    from moestream.prompt_cache import PromptCache
    from moestream.ranks.shared_engine import SharedEngine

    if limit_bytes == _OFF:
        return None

    def trouble(message: str) -> None:
        if not quiet:
            ui.warning(message)

    try:
        if isinstance(engine, SharedEngine):
            from moestream.ranks.prompts import SharedPrompts

            return SharedPrompts(engine, limit_bytes, on_trouble=trouble)
        return PromptCache(engine, limit_bytes, on_trouble=trouble)
    except UnsupportedModelError:
        if limit_bytes is None:
            return None
        raise
