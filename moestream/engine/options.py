"""What may be chosen of an engine and of sampling; names and defaults are llama.cpp's."""

import secrets
from dataclasses import dataclass
from typing import Any

from moestream.choices import BACKENDS, KV_TYPES, KVType
from moestream.declare import check, option

DEFAULT_CONTEXT = 8192
"""Tokens of context at most where none is asked for."""


def _cache_type(short: str, flag: str, what: str) -> Any:
    told = f"How {what} are stored; q8_0 takes half the memory, q4_0 a quarter."
    return option("f16", told, flags=(short, flag), choices=KV_TYPES, rare=True)


@dataclass(frozen=True)
class EngineOptions:
    """What ``Engine.open`` takes beside memory; None leaves the choice to it."""

    context_length: int | None = option(
        None,
        f"Tokens of context; 0 is all the model has, by default {DEFAULT_CONTEXT} at most.",
        flags=("-c", "--ctx-size"),
        kind=int,
        least=0,
        metavar="N",
    )
    threads: int | None = option(
        None,
        "CPU threads; -1 is one a physical core.",
        flags=("-t", "--threads"),
        kind=int,
        least=1,
        most=1024,
        words={"-1": None, "0": None},
        metavar="N",
    )
    backend: str = option(
        "auto",
        "What does the maths: auto is the fastest that runs here.",
        choices=BACKENDS,
    )
    cache_type_k: KVType = _cache_type("-ctk", "--cache-type-k", "keys")
    cache_type_v: KVType = _cache_type("-ctv", "--cache-type-v", "values")


def draw_seed() -> int:
    """A seed by chance, to be told so that a run can be repeated."""
    return secrets.randbits(32)


def _read_seed(text: str) -> int:
    if text == "-1":
        return draw_seed()
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**32:
        raise ValueError(
            f"{text!r}, expected a whole number of 0 to {2**32 - 1}, or -1 to draw one"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch theirs off.
    Penalties look at the last ``repeat_last_n`` tokens, prompt included (-1: all, 0: none).

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = option(
        0.8,
        "0 always takes the likeliest token.",
        flags=("--temp", "--temperature"),
        least=0,
        metavar="N",
    )
    top_k: int = option(
        40,
        "Choose among the N likeliest tokens; 0 is off.",
        least=0,
        words={"-1": 0},
        metavar="N",
    )
    top_p: float = option(
        0.95,
        "Choose among the likeliest that reach P together.",
        least=0,
        most=1,
        metavar="P",
    )
    min_p: float = option(
        0.05,
        "Leave out those below P of the likeliest's chance.",
        least=0,
        most=1,
        metavar="P",
    )
    repeat_penalty: float = option(
        1.0, "Divide the scores of recent tokens by N; 1 is off.", least=0, above=True, metavar="N"
    )
    repeat_last_n: int = option(
        64,
        "How many tokens back penalties look; 0 is none, -1 is all.",
        least=-1,
        metavar="N",
        rare=True,
    )
    presence_penalty: float = option(
        0.0, "Take N off the score of recent tokens; 0 is off.", metavar="N", rare=True
    )
    frequency_penalty: float = option(
        0.0, "The same, for each time that they were seen.", metavar="N", rare=True
    )
    seed: int | None = option(
        None,
        "Seed of the random choices; -1 draws one.",
        flags=("-s", "--seed"),
        kind=int,
        least=0,
        most=2**32 - 1,
        parse_text=_read_seed,
        default_told="-1",
        metavar="N",
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def penalises(self) -> bool:
        """Whether tokens of the past change a score."""
        return self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
