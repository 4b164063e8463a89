"""Oracle files: what llama.cpp said about a text, small enough to commit.

A file holds, for every position, the log-probabilities of llama.cpp's 64 likeliest tokens and of
all others together, and that of the token that came next: enough to compare perplexity, and to
bound the KL divergence from below. The logits are those of the weights written as F32; beside
them stands how far llama.cpp itself is from these when it runs the quantised file and rounds
activations. Pure NumPy: the test that reads a file needs no llama.cpp.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oracle.logit_stats import blocks, kl_divergence, log_softmax, next_log_probs, perplexity

TOP = 64

Logits = NDArray[np.float32]  # (T, V)


@dataclass(frozen=True, slots=True)
class Oracle:
    """What a file holds of W windows of T tokens.

    tokens: (W, T) ids.
    top_ids: (W, T, 64), by falling probability.
    log_probs: (W, T, 65), of these and, last, of all others together.
    next_log_probs: (W, T - 1), of the token that came next.
    rounded_kl, rounded_next_log_probs: (W, T) and (W, T - 1), llama.cpp on the quantised file;
        the first by `kl`.
    """

    model_sha256: str
    llama_cpp: str
    tokens: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    next_log_probs: NDArray[np.float32]
    rounded_kl: NDArray[np.float32]
    rounded_next_log_probs: NDArray[np.float32]

    @classmethod
    def load(cls, path: Path) -> Oracle:
        """Read a file that `OracleWriter` wrote."""
        with np.load(path) as arrays:
            values = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**{name: x if x.ndim else str(x) for name, x in values.items()})

    @property
    def perplexity(self) -> float:
        """Of llama.cpp on these windows, with F32 weights."""
        return perplexity(self.next_log_probs)

    @property
    def rounded_perplexity(self) -> float:
        """Of llama.cpp on these windows, with the file's own weights."""
        return perplexity(self.rounded_next_log_probs)

    def kl(self, window: int, logits: Logits) -> NDArray[np.float64]:
        """Return a lower bound of KL(llama.cpp || logits) at each position: (T, V) -> (T,).

        It is the KL divergence of the two distributions over {64 tokens, all others together}:
        joining outcomes can only bring two distributions closer.
        """
        return _partition_kl(self.top_ids[window], self.log_probs[window], logits)


class OracleWriter:
    """Collects windows of logits and writes them as one `.npz`."""

    def __init__(self, model: Path, llama_cpp: str) -> None:
        with model.open("rb") as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._llama_cpp = llama_cpp
        self._windows: dict[str, list[NDArray[np.generic]]] = {}

    def add(self, tokens: ArrayLike, logits: Logits, rounded: Logits) -> None:
        """Add a window of the one length T: token ids (T,), logits of F32 weights, of the file."""
        top_ids = np.argsort(-logits, axis=1)[:, :TOP].astype(np.int32)
        log_probs = partition_log_probs(logits, top_ids).astype(np.float32)
        arrays = {
            "tokens": np.asarray(tokens, dtype=np.int32),
            "top_ids": top_ids,
            "log_probs": log_probs,
            "next_log_probs": next_log_probs(logits, tokens).astype(np.float32),
            "rounded_kl": _partition_kl(top_ids, log_probs, rounded).astype(np.float32),
            "rounded_next_log_probs": next_log_probs(rounded, tokens).astype(np.float32),
        }
        for name, array in arrays.items():
            self._windows.setdefault(name, []).append(array)

    def save(self, path: Path) -> None:
        """Write the file."""
        arrays = {name: np.stack(windows) for name, windows in self._windows.items()}
        arrays["model_sha256"] = np.array(self._sha256)
        arrays["llama_cpp"] = np.array(self._llama_cpp)
        np.savez_compressed(path, **arrays)


def partition_log_probs(logits: Logits, ids: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return log-probabilities of `ids` and, last, of all others: (T, V), (T, k) -> (T, k + 1)."""
    parts = []
    for rows in blocks(len(logits)):
        log_probs = log_softmax(logits[rows])
        chosen = np.take_along_axis(log_probs, ids[rows], axis=1)
        np.put_along_axis(log_probs, ids[rows], -np.inf, axis=1)
        others = np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
        parts.append(np.concatenate([chosen, others], axis=1))
    return np.concatenate(parts)


def _partition_kl(
    ids: NDArray[np.int32], log_probs: NDArray[np.float32], logits: Logits
) -> NDArray[np.float64]:
    return kl_divergence(log_probs.astype(np.float64), partition_log_probs(logits, ids))
