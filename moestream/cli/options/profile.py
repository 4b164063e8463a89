"""How profiles are named on the command line: ``italian``, ``italian:2,code``, ``./mine.json``."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from moestream.errors import ProfileError

if TYPE_CHECKING:
    from moestream.profiles.names import Part


def parse_part(text: str) -> "Part":
    """Read ``NAME`` or ``NAME:WEIGHT``.

    Raises:
        ValueError: the weight is not a positive number.
        ProfileError: the name is none.
    """
    from moestream.profiles.names import profile_path

    name, colon, number = text.strip().rpartition(":")
    if not colon:
        name, number = number, "1"
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 1e-6 <= weight <= 1e6:
        raise ValueError(f"{number!r} is no weight of a profile: expected a number above 0")
    profile_path(name)
    return name, weight


def parts_callback(
    ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> "tuple[Part, ...] | None":
    """Take profiles with weights, between commas or as arguments of their own."""
    if value is None:
        return None
    texts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(parse_part(text) for text in texts)
    except (ValueError, ProfileError) as error:
        raise click.BadParameter(str(error), ctx, param) from None


def name_callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Reject what cannot be a profile's name, or one of several."""
    from moestream.profiles.names import profile_path

    try:
        for name in (value,) if isinstance(value, str) else value:
            profile_path(name)
    except ProfileError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


def file_callback(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Turn a profile's name into the file that it leads to."""
    from moestream.profiles.names import profile_path

    return None if value is None else profile_path(name_callback(ctx, param, value))


def complete_profile(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the profiles that there are, for the last of several."""
    from moestream.profiles.names import profile_names

    before, comma, last = incomplete.rpartition(",")
    return [
        CompletionItem(before + comma + name) for name in profile_names() if name.startswith(last)
    ]


def name_argument(name: str = "name", **kwargs: Any) -> Callable[[Any], Any]:
    """NAME: of a profile, or a path that ends in .json."""
    kwargs = {"callback": name_callback, "shell_complete": complete_profile} | kwargs
    return click.argument(name, **kwargs)
