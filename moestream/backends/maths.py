"""Exponentials and products that formulas outside the kernels are made of.

The formulas here are NumPy's own, whose last bits are of one kind of processor. A backend whose
results must not be has others.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Maths:
    """Element by element, but for products; what is made of exponentials is made here once."""

    def exponentials(self, x: Floats) -> Floats:
        """``e^x``."""
        found: Floats = np.exp(x)
        return found

    def products(self, a: Floats, b: Floats) -> Floats:
        """Each row of one with each of the other: (M, D), (N, D) -> (M, N)."""
        found: Floats = a @ b.T
        return found

    def softplus(self, x: Floats) -> Floats:
        """``log(1 + e^x)``; the exponential cannot overflow."""
        return np.logaddexp(np.float32(0), x)

    def soften(self, x: Floats, limit: float) -> Floats:
        """``limit * tanh(x / limit)``."""
        softened: Floats = np.tanh(x / np.float32(limit)) * np.float32(limit)
        return softened

    def sigmoid(self, x: Floats) -> Floats:
        """``1 / (1 + e^-x)``."""
        # exp(-|x|) cannot overflow; each half of the formula is exact in its own sign.
        decay = self.exponentials(-np.abs(x))
        upper: Floats = np.reciprocal(np.float32(1) + decay)
        return np.where(x >= 0, upper, decay * upper)

    def softmax(self, x: Floats) -> Floats:
        """Exponentials of the last axis, divided by their sum."""
        exponentials = self.exponentials(x - x.max(axis=-1, keepdims=True))
        total: Floats = exponentials.sum(axis=-1, keepdims=True)
        return exponentials / total


NUMPY = Maths()
