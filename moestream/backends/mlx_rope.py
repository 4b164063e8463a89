"""Rotary positions on MLX."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_device import Device
from moestream.backends.types import Array, RopeStyle


class Angles:
    """A chunk's angles on the device: all layers of one kind share them, so each is copied once."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._made: dict[int, tuple[Any, Array, Array]] = {}

    def of(self, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> tuple[Array, Array]:
        """Both of them, (T, 1, D/2)."""
        made = self._made.get(cos.shape[1])
        if made is None or made[0] is not cos:
            made = (cos, self._device.send(cos)[:, None], self._device.send(sin)[:, None])
            self._made[cos.shape[1]] = made
        return made[1:]


def turn(ops: Any, x: Array, angles: tuple[Array, Array], style: RopeStyle) -> Array:
    """Turn pairs of coordinates; what lies beyond the rotary dimensions passes through."""
    c, s = angles
    half = c.shape[2]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if style == "interleaved":
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    first = ops.subtract(ops.multiply(a, c), ops.multiply(b, s))
    second = ops.add(ops.multiply(a, s), ops.multiply(b, c))
    if style == "interleaved":
        pairs = ops.stack([first, second], axis=-1).reshape(turned.shape)
        return pairs if not rest.size else ops.concatenate([pairs, rest], axis=-1)
    return ops.concatenate([first, second, *([rest] if rest.size else [])], axis=-1)
