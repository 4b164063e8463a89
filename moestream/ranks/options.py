"""What each rank opens its part of a model with: its own options, and what the first one says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]
"""What ``Engine.open`` takes."""
_TOLD = ("context_length", "threads", "backend", "cache_type_k", "cache_type_v", "budget")
"""Options that the first rank tells the others: a comparison of runs has several of them."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What is asked of several machines."""

    shares: tuple[str, ...] = ()
    """The budgets of all, in order."""
    verify: bool = False
    """Whether their files are compared byte by byte."""


def told(options: Options) -> dict[str, Any]:
    """Of the first rank's options, what the others take in the place of their own."""
    return {name: options[name] for name in _TOLD if name in options}


def own_options(options: Options, shares: Sequence[str], rank: int) -> Options:
    """The options of one rank, whose budget is its share."""
    return {**options, "budget": shares[rank]} if shares else options
