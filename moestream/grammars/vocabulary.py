"""A model's vocabulary as grammars see it: the bytes of every token, and which end a generation.

Made once a model: it takes about a second for 150,000 tokens.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from functools import lru_cache

import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from moestream.errors import RequestError
from moestream.tokenizer import Tokenizer

Mask = NDArray[np.bool_]
_WHITE_SPACE = b" \t\r\n"


class Vocabulary:
    """The tokens, for grammars; masks are shared and not to be written to."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        """``end_ids``: what ends a generation, and may come exactly where a grammar may end.

        Raises:
            RequestError: there is none.
        """
        if not end_ids:
            raise RequestError("this model has no end token, and a grammar needs one")
        self.size = tokenizer.vocab_size
        self.ends = frozenset(end_ids)
        self.end_ids = np.array(sorted(end_ids))
        self.bytes = [tokenizer.token_bytes(id) for id in range(self.size)]
        self.not_ends = ~self.mask(end_ids)
        """Allows all but what ends a generation."""
        spaces = [id for id, data in enumerate(self.bytes) if data and is_space(data)]
        self.white_space = self.mask(spaces)
        """Allows white space alone."""
        self.digits = self.mask([id for id, data in enumerate(self.bytes) if data[:1].isdigit()])
        """Allows what starts with a digit."""
        self.letters = self.mask([id for id, data in enumerate(self.bytes) if data == b"z"])
        """Allows a letter that no number has."""
        self._sorted = sorted(range(self.size), key=self.bytes.__getitem__)
        self._sorted_bytes = [self.bytes[id] for id in self._sorted]
        self.for_grammars = LLTokenizer(
            TokenizerWrapper(_Described(tokenizer, self.bytes, int(self.end_ids[0]))),
            eos_token=[int(id) for id in self.end_ids],
        )

    def mask(self, ids: Collection[int] = ()) -> Mask:
        """Allow these tokens alone."""
        mask = np.zeros(self.size, np.bool_)
        mask[list(ids)] = True
        return mask

    def starting(self, text: bytes) -> Iterator[int]:
        """The tokens that start with these bytes; special ones go by their names."""
        at = bisect_left(self._sorted_bytes, text)
        while at < self.size and self._sorted_bytes[at].startswith(text):
            yield self._sorted[at]
            at += 1

    def saying(self, text: bytes) -> Iterator[int]:
        """The tokens that are these bytes."""
        at = bisect_left(self._sorted_bytes, text)
        while at < self.size and self._sorted_bytes[at] == text:
            yield self._sorted[at]
            at += 1

    @lru_cache(maxsize=256)  # noqa: B019 - lives as long as the model
    def completing(self, marker: bytes, begun: int, *, more: bool) -> Mask:
        """Allow what completes the marker, of which so many bytes were said.

        With ``more``, only what says something after it that is not white space.
        """
        rest = marker[begun:]
        found = [(id, self.bytes[id][len(rest) :]) for id in self.starting(rest)]
        found += [(id, self.bytes[id].partition(marker)[2]) for id in self._containing(marker)]
        return self.mask([id for id, after in found if not (more and is_space(after))])

    @lru_cache(maxsize=64)  # noqa: B019 - lives as long as the model
    def _containing(self, text: bytes) -> list[int]:
        return [id for id, data in enumerate(self.bytes) if text in data]


class _Described:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], end_id: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end_id
        self.bos_token_id = tokenizer.bos_id
        self.tokens = tokens
        ids = range(tokenizer.vocab_size)
        self.special_token_ids = [id for id in ids if tokenizer.is_hidden(id)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False)


def is_space(data: bytes) -> bool:
    """Whether it is white space and nothing else."""
    return not data.strip(_WHITE_SPACE)
