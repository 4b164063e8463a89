"""Where repetitions end that DRY counts: tokens, and sequences of them, of a vocabulary.

Which texts they stand for, ``chat.breakers`` knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Breakers:
    """Single tokens, as a mask (V,); and by their first token, what follows of longer ones."""

    single: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    longer: Mapping[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def are_single(self, ids: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which ids break by themselves."""
        if not len(self.single):
            return np.zeros(len(ids), np.bool_)
        return self.single[ids]

    def since(self, recent: NDArray[np.intp]) -> int:
        """How many tokens there are since the last breaker, of tokens that begin with the last."""
        single = np.flatnonzero(self.are_single(recent))
        nearest = int(single[0]) if len(single) else len(recent)
        if not self.longer:
            return nearest
        tokens = recent[: nearest + 1].tolist()
        for at, token in enumerate(tokens):
            fitting = [
                len(tail)
                for tail in self.longer.get(token, ())
                if list(tail) == tokens[:at][::-1][: len(tail)]
            ]
            if fitting or at == nearest:
                return at - max(fitting, default=0)
        return nearest


NO_BREAKERS = Breakers()
