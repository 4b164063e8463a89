"""MLX's device: what is launched on it, what goes there and comes back, and when one waits for it.

Everything on it is lazy. Owns the counts of all this.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_core import Counted, mx
from moestream.backends.types import Array, Work

_async_eval: Any = mx.async_eval  # which has no types where there is MLX


class Device:
    """The one that MLX has by default."""

    def __init__(self) -> None:
        self.work = Work()
        self.ops: Any = Counted(mx, self.work)
        self.fast: Any = Counted(mx.fast, self.work)
        self._begun: list[Array] = []
        """To be computed by the end of the next wait: among it, what may still read experts."""
        self._known: list[Array] = []
        """What the last wait was for, and what came from the CPU since."""

    def send(self, values: NDArray[Any]) -> Array:
        """Copy to the device."""
        self.work.copied_bytes += values.nbytes
        return mx.array(values)

    def fetch(self, x: Array) -> NDArray[np.float32]:
        """Copy from the device, once ``x`` is computed."""
        if not any(x is known for known in self._known):
            self.evaluate(x)
        self.work.copied_bytes += x.nbytes
        return np.array(x)

    def know(self, x: Array) -> None:
        """Note that there is nothing to wait for."""
        self._known.append(x)

    def put_off(self, x: Array) -> None:
        """Have it computed by the end of the next wait."""
        self._begun.append(x)

    def begin(self, x: Array) -> None:
        """Hand the work over now, and go on."""
        _async_eval(x)
        self.put_off(x)

    def evaluate(self, *arrays: Array) -> None:
        """Compute these and all that was begun: the one place that waits."""
        self._known, self._begun = [*arrays, *self._begun], []
        mx.eval(*self._known)
        self.work.synchronisations += 1
