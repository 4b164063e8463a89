"""Token ids as sequences of numbers, whatever they stand for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


def common_length(a: Sequence[int] | Tokens, b: Sequence[int] | Tokens) -> int:
    """How many tokens both begin with."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(np.asarray(a[:n], np.int32) != np.asarray(b[:n], np.int32))
    return int(differ[0]) if len(differ) else n
