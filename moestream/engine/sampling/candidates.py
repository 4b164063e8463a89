"""Tokens that may still come next, and what a sampler does to them: leave out, or change scores."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moestream.engine.sampling.largest import Scores, largest

MOST = 1e300
"""Of a score: beyond it a difference, or its quotient, could overflow."""
_REACH = 1e37
"""Of logits: beyond it a difference could overflow in 32 bits."""
_HEADS = (256, 4096)
"""How many candidates are looked at first for those that reach a share."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ids in rising order, (N,), and their scores, all finite; there is one at least.

    Scores are of 32 bits as long as they are the logits: to convert very many takes longest.
    """

    ids: NDArray[np.intp]
    scores: Scores

    @classmethod
    def of(cls, scores: Scores) -> "Candidates":
        """All that have a chance, of scores (V,)."""
        everything = cls(_all_ids(len(scores)), scores)
        reach = float(scores.max()) - float(scores.min())
        if reach < _REACH:
            return everything
        return everything.kept(scores > -np.inf)

    def __len__(self) -> int:
        return len(self.ids)

    def kept(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Candidates":
        """Those of a mask, or of rising places."""
        which = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return Candidates(self.ids[which], self.scores[which].astype(np.float64))

    def rescored(self, scores: Scores) -> "Candidates":
        """The same with other scores."""
        return Candidates(self.ids, scores)

    def places(self, ids: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where ids are, of those which are among them; and which these are."""
        places = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        found = self.ids[places] == ids
        return places[found], found

    def shares(self) -> Scores:
        """Their chances."""
        shares: Scores = np.exp(self.scores - self.scores.max())
        shares /= shares.sum()
        return shares

    def surprises(self) -> Scores:
        """The negative logarithms of their chances, also of those that are as good as none."""
        below: Scores = self.scores.max() - self.scores
        below += np.log(np.exp(-below).sum())
        return below

    def entropy(self) -> float:
        """The mean surprise."""
        surprises = self.surprises()
        return float((np.exp(-surprises) * surprises).sum(dtype=np.float64))

    def reaching(self, share: float, by: Scores, *, above: bool = False) -> "Candidates":
        """The fewest of the largest ``by`` whose chances reach a share, or go ``above`` it."""
        shares = self.shares()
        for count in (*_HEADS, len(self)):
            first = largest(by, count)
            reached = np.cumsum(shares[first], dtype=np.float64)
            at = int(np.searchsorted(reached, share, side="right" if above else "left"))
            if at < len(first) or count >= len(self):
                return self.kept(np.sort(first[: at + 1]))
        raise AssertionError("the last head is the whole")


@lru_cache(maxsize=4)
def _all_ids(count: int) -> NDArray[np.intp]:
    ids = np.arange(count)
    ids.flags.writeable = False
    return ids
