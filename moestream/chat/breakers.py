"""Which tokens of a vocabulary end a repetition, as DRY counts them, given texts that do.

A token ends one if it has the text, or its beginning where other tokens have the rest.
"""

from functools import lru_cache

import numpy as np

from moestream.engine.options import SamplingParams
from moestream.engine.sampling import NO_BREAKERS, Breakers
from moestream.tokenizer import Tokenizer

_MOST_BYTES = 40
_MOST_TOKENS = 20
"""Of what follows a token; both are llama.cpp's."""

Found = tuple[frozenset[int], dict[int, tuple[tuple[int, ...], ...]]]
"""Tokens that have a text, and by their first token, what follows of those that begin it."""


def breakers_of(sampling: SamplingParams, tokenizer: Tokenizer) -> Breakers:
    """What ends a repetition of DRY; nothing where that is off.

    Each text takes a look at the whole vocabulary, once.
    """
    if not sampling.dry_multiplier:
        return NO_BREAKERS
    single = np.zeros(tokenizer.vocab_size, np.bool_)
    longer: dict[int, tuple[tuple[int, ...], ...]] = {}
    for text in filter(None, sampling.breakers):
        alone, begun = _of(tokenizer, text)
        single[list(alone)] = True
        for id, tails in begun.items():
            longer[id] = (*longer.get(id, ()), *tails)
    return Breakers(single, longer)


@lru_cache(maxsize=16)
def _of(tokenizer: Tokenizer, text: str) -> Found:
    sought = text.encode(errors="replace")[:_MOST_BYTES]
    single: set[int] = set()
    longer: dict[int, tuple[tuple[int, ...], ...]] = {}
    ends = tuple(sought[:length] for length in range(1, len(sought)))
    for id in range(tokenizer.vocab_size):
        word = tokenizer.token_bytes(id)
        if sought in word:
            single.add(id)
        elif word.endswith(ends):
            rests = (sought[len(end) :] for end in ends if word.endswith(end))
            longer[id] = tuple({_ids(tokenizer, rest) for rest in rests})
    return frozenset(single), longer


def _ids(tokenizer: Tokenizer, rest: bytes) -> tuple[int, ...]:
    text = rest.decode(errors="replace")
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    return tuple(ids[:_MOST_TOKENS])
