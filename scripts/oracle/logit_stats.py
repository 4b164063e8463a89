"""How far two sets of logits are apart: KL divergence and perplexity, in float64.

Pure NumPy; used by the oracle scripts and by the tests that compare with an oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_ROWS = 64  # positions in float64 at once: bounds memory for large vocabularies


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:  # (..., V)
    """Return log-probabilities over the last axis."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def kl_divergence(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(p || q) in nats for every row of two arrays of log-probabilities, (T, V) -> (T,).

    Never below zero: rounding can put the sum for two equal rows at about -1e-16.
    """
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0.0)


def perplexity(next_log_probs: ArrayLike) -> float:
    """Return exp(mean negative log-probability) of the tokens that came next, (T,)."""
    return float(np.exp(-np.mean(np.asarray(next_log_probs, dtype=np.float64))))


def next_log_probs(logits: NDArray[np.float32], tokens: ArrayLike) -> NDArray[np.float64]:
    """Return the log-probability of each token after the first: (T, V), (T,) -> (T - 1,)."""
    following = np.asarray(tokens)[1:, None]
    return np.concatenate(
        [
            np.take_along_axis(log_softmax(logits[:-1][rows]), following[rows], axis=1)[:, 0]
            for rows in blocks(len(following))
        ]
    )


def blocks(length: int) -> Iterator[slice]:
    """Yield slices of `length` rows, so that only a few are in float64 at once."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, length, BLOCK_ROWS))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Logits q of one program against p of another, at the positions of a text.

    `kl` and `same_top` are for each position, `next_p` and `next_q` are the log-probabilities of
    the tokens that came next, where there is a next token.
    """

    kl: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    next_p: NDArray[np.float64]
    next_q: NDArray[np.float64]

    @classmethod
    def of(cls, tokens: ArrayLike, p: NDArray[np.float32], q: NDArray[np.float32]) -> Self:
        """Compare the logits (T, V) of one window of token ids (T,)."""
        kl = [kl_divergence(log_softmax(p[rows]), log_softmax(q[rows])) for rows in blocks(len(p))]
        return cls(
            kl=np.concatenate(kl),
            same_top=p.argmax(axis=1) == q.argmax(axis=1),
            next_p=next_log_probs(p, tokens),
            next_q=next_log_probs(q, tokens),
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return one comparison over the positions of all `parts`."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def summary(self) -> dict[str, float]:
        """Return the figures, KL in nats; `perplexity_change` is relative, q against p."""
        perplexity_p, perplexity_q = perplexity(self.next_p), perplexity(self.next_q)
        return {
            "positions": len(self.kl),
            "kl_mean": float(self.kl.mean()),
            "kl_median": float(np.median(self.kl)),
            "kl_p99": float(np.quantile(self.kl, 0.99)),
            "kl_max": float(self.kl.max()),
            "top1_agreement": float(self.same_top.mean()),
            "perplexity_p": perplexity_p,
            "perplexity_q": perplexity_q,
            "perplexity_change": perplexity_q / perplexity_p - 1,
        }
