"""From the fields of a dataclass to options of the command line, and back.

What an option is called, takes and does is told at its field; see ``moestream.declare``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from moestream.cli.command import Body, apply, option
from moestream.declare import Declared, OptionSpec, declared


class Value(click.ParamType[Any]):
    """What a field's option takes."""

    def __init__(self, takes: OptionSpec) -> None:
        self.takes = takes
        self.name = takes.kind.__name__

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a value; from config.toml it may be a number already."""
        if isinstance(value, tuple):  # a default that is more than one value
            return value
        if isinstance(value, bool):
            value = "on" if value else "off"
        try:
            return self.takes.parse(value if isinstance(value, str) else f"{value}")
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The choices, where there are some."""
        return f"[{'|'.join(self.takes.choices)}]" if self.takes.choices else None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the choices."""
        words = (*self.takes.choices, *self.takes.words)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def field_options(
    of: type, section: str, names: Sequence[str] = (), *, unset: bool = False
) -> list[Callable[..., Body]]:
    """The options of a dataclass, or of some of its fields, in their order.

    With ``unset``, those that are not given are None, whatever their defaults.
    """
    fields = declared(of)
    return [_option(fields[name], section, unset) for name in names or fields]


def _option(each: Declared, section: str, unset: bool) -> Callable[[Body], Body]:
    takes = each.option
    if takes.kind is bool:
        return option(
            *each.flags, each.name, section=section, is_flag=True, help=takes.help, rare=takes.rare
        )
    told = f"  [default: {each.told}]" if each.told else ""
    return option(
        *each.flags,
        each.name,
        section=section,
        type=str if takes.many and takes.parse_text is None else Value(takes),
        multiple=takes.many,
        default=None if unset else each.default,
        metavar=takes.metavar,
        rare=takes.rare,
        help=takes.help + told,
    )


def filled_by(
    of: Callable[..., Any], name: str, options: Sequence[Any], fields: Sequence[str]
) -> Callable[[Body], Body]:
    """Decorate a body that gets one ``name``, made by ``of`` from the values of ``fields``."""

    def decorate(body: Body) -> Body:
        @functools.wraps(body)
        def with_value(*args: Any, **kwargs: Any) -> None:
            values = {field: kwargs.pop(field) for field in fields}
            body(*args, **{name: of(**values)}, **kwargs)

        return apply(options, with_value)

    return decorate
