"""From the fields of a dataclass to options of the command line, and back.

What an option is called, takes and does is told at its field; see ``moestream.declare``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from moestream.cli.command import Body, option
from moestream.declare import Declared, OptionSpec, declared


class Value(click.ParamType[Any]):
    """What a field's option takes."""

    def __init__(self, takes: OptionSpec) -> None:
        self.takes = takes
        self.name = takes.kind.__name__

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a value; from config.toml it may be a number already."""
        if isinstance(value, tuple | dict):  # read already, or a default
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
    of: type,
    section: str,
    names: Sequence[str] = (),
    *,
    unset: bool = False,
    rare: bool = False,
) -> list[Callable[..., Body]]:
    """The options of a dataclass, or of some of its fields, in their order.

    With ``unset``, those that are not given are None, whatever their defaults. With ``rare``, all
    of them are, whatever their fields say.
    """
    fields = declared(of)
    return [_option(fields[name], section, unset, rare) for name in names or fields]


def _option(each: Declared, section: str, unset: bool, rare: bool) -> Callable[[Body], Body]:
    takes = each.option
    rare = rare or takes.rare
    if takes.kind is bool:
        return option(
            *each.flags,
            each.name,
            section=section,
            is_flag=True,
            help=takes.help,
            rare=rare,
        )
    told = f"  [default: {each.told}]" if each.told else ""
    return option(
        *each.flags,
        each.name,
        section=section,
        type=str if takes.many and takes.parse_text is None else Value(takes),
        multiple=takes.many,
        default=None if unset else each.default,
        show_default=False,  # the help says it, in the option's own words
        metavar=takes.metavar,
        rare=rare,
        help=takes.help + told,
    )
