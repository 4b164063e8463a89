"""What ``--split`` takes: ``auto``, or a share of an expert."""

from typing import Literal

import click


def parse_split(text: str) -> float | Literal["auto"]:
    """Read ``auto`` or a share.

    Raises:
        ValueError: it is neither.
    """
    if text == "auto":
        return "auto"
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.01 <= share <= 1:
        raise ValueError(f"{text!r} is neither auto nor a share from 0.01 to 1.")
    return share


def split_callback(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> float | Literal["auto"] | None:
    """Of an option that takes one."""
    try:
        return None if text is None else parse_split(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
