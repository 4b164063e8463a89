"""A model's vocabulary as grammars see it: the bytes of every token, and which end a generation.

Made once a model: it takes about a second for 150,000 tokens.
"""

from collections.abc import Collection
from functools import cached_property

import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from moestream.errors import RequestError
from moestream.tokenizer import Tokenizer

Mask = NDArray[np.bool_]
_WHITE_SPACE = b" \t\r\n"


class Vocabulary:
    """The tokens, for grammars."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        """``end_ids``: what ends a generation, and may come exactly where a grammar may end.

        Raises:
            RequestError: there is none.
        """
        if not end_ids:
            raise RequestError("this model has no end token, and a grammar needs one")
        self.size = tokenizer.vocab_size
        self.end_ids = np.array(sorted(end_ids))
        self.bytes = [tokenizer.token_bytes(id) for id in range(self.size)]
        self.ends = frozenset(end_ids)
        self._completing: dict[tuple[bytes, int, bool], Mask] = {}
        self.for_grammars = LLTokenizer(
            TokenizerWrapper(_Described(tokenizer, self.bytes, int(self.end_ids[0]))),
            eos_token=[int(id) for id in self.end_ids],
        )

    def mask(self, ids: Collection[int] = ()) -> Mask:
        """Allow these tokens alone."""
        mask = np.zeros(self.size, np.bool_)
        mask[list(ids)] = True
        return mask

    @cached_property
    def not_ends(self) -> Mask:
        """Allow all but what ends a generation."""
        mask = np.ones(self.size, np.bool_)
        mask[self.end_ids] = False
        return mask

    @cached_property
    def ids(self) -> dict[bytes, list[int]]:
        """The tokens that stand for these bytes; special ones go by their names."""
        ids: dict[bytes, list[int]] = {}
        for id, data in enumerate(self.bytes):
            if data:
                ids.setdefault(data, []).append(id)
        return ids

    @cached_property
    def white_space(self) -> Mask:
        """Allow white space alone."""
        return self.mask([id for id, data in enumerate(self.bytes) if data and is_space(data)])

    def completing(self, marker: bytes, begun: int, *, more: bool) -> Mask:
        """Allow what completes the marker, of which so many bytes were said.

        With ``more``, only what says something after it that is not white space.
        """
        key = marker, begun, more
        if key not in self._completing:
            said = marker[:begun]
            ids = [
                id
                for id, data in enumerate(self.bytes)
                if (found := (said + data).find(marker)) >= 0
                and not (more and is_space((said + data)[found + len(marker) :]))
            ]
            self._completing[key] = self.mask(ids)
        return self._completing[key]


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
