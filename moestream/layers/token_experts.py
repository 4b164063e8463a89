"""Experts that a token's id chooses, where no router does."""

import numpy as np
from numpy.typing import NDArray

from moestream.errors import ModelFormatError
from moestream.layers.weights import Weights
from moestream.quants import GGMLQuantizationType

TOKEN_EXPERTS = "ffn_gate_tid2eid.weight"
"""A table of whole numbers."""


class TokenExperts:
    """Ids of the experts of each token: (V, k)."""

    def __init__(self, weights: Weights, vocab_size: int, chosen: int, num_experts: int) -> None:
        """Raises ModelFormatError: other numbers, or too few of them."""
        tensor = weights.rows(TOKEN_EXPERTS, chosen)
        if tensor.type != GGMLQuantizationType.I32 or tensor.shape[0] != vocab_size:
            raise ModelFormatError(
                f"{weights.file.path}: tensor {tensor.name!r} has {tensor.shape[0]} rows of "
                f"{tensor.type.name}, expected {vocab_size} of I32"
            )
        self._ids = np.ascontiguousarray(tensor.data).view(np.int32)
        if self._ids.size and not 0 <= self._ids.min() <= self._ids.max() < num_experts:
            raise ModelFormatError(
                f"{weights.file.path}: tensor {tensor.name!r} names experts {self._ids.min()} to "
                f"{self._ids.max()}, expected 0 to {num_experts - 1}"
            )

    def __call__(self, tokens: NDArray[np.int32]) -> NDArray[np.int32]:
        """Of tokens (T,): (T, k)."""
        return self._ids[tokens]
