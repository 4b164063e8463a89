"""The MODEL argument, and what is offered for it."""

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from moestream.cli.command import Body


def _complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    # Names or files: bash forgets all names where a file is among what is offered.
    return complete_name(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names in the catalogue."""
    from moestream.catalog import catalog

    return [
        CompletionItem(spec.name, help=spec.description)
        for spec in catalog().values()
        if spec.name.startswith(incomplete)
    ]


def model_argument(**kwargs: Any) -> Callable[[Body], Body]:
    """MODEL: a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path.

    Where it may be left out, ``MOESTREAM_MODEL`` is what it is then.
    """
    if "default" in kwargs:
        kwargs = {"envvar": "MOESTREAM_MODEL"} | kwargs
    return click.argument("model", shell_complete=_complete_model, **kwargs)
