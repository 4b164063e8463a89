"""The memory of a machine to plan for, which need not be this one, and budgets within it."""

from typing import TYPE_CHECKING

import click

from moestream.cli.command import option
from moestream.errors import BudgetError

if TYPE_CHECKING:
    from moestream.streaming.memory import Memory

_LEAST_BYTES = 1 << 20


def amounts(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Read several amounts of memory: the callback of an option that takes them."""
    try:
        return tuple(_amount(part) for part in text.split(",")) if text else ()
    except BudgetError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _memory(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    found = amounts(ctx, param, text)
    if len(found) > 1:
        raise click.BadParameter("one amount is expected, such as 16G", ctx, param)
    return found[0] if found else None


def _amount(text: str) -> int:
    from moestream.streaming.budget import parse_memory

    if "%" in text:
        raise BudgetError(f"{text!r} is no amount of memory; expected 640M or 1.5G")
    n_bytes = parse_memory(text, 1)
    if n_bytes < _LEAST_BYTES:
        raise BudgetError(f"{text} is less than any model takes; expected an amount such as 6G")
    return n_bytes


memory_option = option(
    "--memory",
    section="Memory",
    callback=_memory,
    show_default="what is free here",
    metavar="AMOUNT",
    help="Memory of the machine to plan for, as 16G (binary); some is left to the system.",
)
"""The body gets ``memory``, in bytes, or None."""
budgets_option = option(
    "--budget",
    "budgets",
    section="Memory",
    callback=amounts,
    metavar="AMOUNT,...",
    help="Say how fast it is at these budgets, instead of at some that hold a part of the experts.",
)
"""The body gets ``budgets``, in bytes."""


def memory_of(n_bytes: int | None) -> "Memory":
    """The memory that was named, or what there is here."""
    from moestream.streaming.memory import Memory, available_memory

    return available_memory() if n_bytes is None else Memory(n_bytes, n_bytes, "--memory")
