"""What may be chosen of an engine when it is opened; names and defaults are llama.cpp's."""

from dataclasses import dataclass
from typing import Any

from moestream.choices import BACKENDS, DRAFTS, KV_TYPES, DraftKind, KVType
from moestream.declare import option

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
    draft: DraftKind = option(
        "none",
        "Guess tokens ahead and check several in a pass: from text that repeats itself (ngram), "
        "by the file's own layer (mtp), or what of both pays (auto). No token changes.",
        choices=DRAFTS,
        rare=True,
    )
