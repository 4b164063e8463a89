"""The options of ``serve``: where it listens, who may ask, and what requests get by default."""

import functools
from pathlib import Path
from typing import Any

import click

from moestream.chat.settings import Settings
from moestream.chat.thinking import Thinking
from moestream.cli.command import Body, apply
from moestream.cli.options.engine import WHERE_SILENT
from moestream.cli.options.fields import field_options
from moestream.cli.options.prompt import require_text, special_option, template_option
from moestream.declare import declared
from moestream.folders import read_text
from moestream.ranks.launch import follows
from moestream.server.options import ServerOptions

KEY_VARIABLE = "MOESTREAM_API_KEY"


def server_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``server``, a ``ServerOptions``, and the ``keys``."""

    @functools.wraps(body)
    def with_server(*args: Any, **kwargs: Any) -> None:
        server = ServerOptions(**{name: kwargs.pop(name) for name in declared(ServerOptions)})
        keys = _keys(server)
        if not (server.is_local or keys or server.insecure):
            raise click.UsageError(
                f"--host {server.host} lets other machines ask; give them a key, with "
                f"--api-key-file or {KEY_VARIABLE}, or say --insecure"
            )
        body(*args, server=server, keys=keys, **kwargs)

    return apply(field_options(ServerOptions, "Server"), with_server)


def _keys(server: ServerOptions) -> tuple[str, ...]:
    """All keys that were given: as options, which the environment stands for, and in a file."""
    keys = list(server.api_key)
    for key in keys:
        require_text(key, "--api-key")
    if server.api_key_file is not None and not follows():  # it is the first machine's
        try:
            lines = read_text(Path(server.api_key_file)).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--api-key-file cannot be read: {error}") from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise click.UsageError("--api-key-file has no key in it")
        keys += found
    return tuple(keys)


def prompt_options(body: Body) -> Body:
    """Add ``max_tokens``, ``chat_template``, ``special`` and the fields of ``Thinking``."""
    silent = field_options(Settings, WHERE_SILENT, ("max_tokens",))
    silent += field_options(Thinking, WHERE_SILENT)
    return apply((*silent, template_option, special_option), body)
