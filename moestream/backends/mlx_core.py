"""MLX itself: its module, its memory for weights, and what it runs on.

Owns the import, so that there is one message where MLX is missing, and the count of calls. How
GGUF blocks are laid out in that memory is in ``mlx_weights``.

Source: https://ml-explore.github.io/mlx, version 0.32, for what each function computes.
"""

from functools import cache
from typing import Any

import numpy as np

from moestream.backends.mlx_weights import MLXLayout, Weight, layout_of
from moestream.backends.types import Array, Work
from moestream.errors import UnsupportedModelError
from moestream.quants import GGMLQuantizationType as Type

try:
    import mlx.core as mx
except ImportError as error:
    raise UnsupportedModelError(
        'the mlx backend needs MLX; in the checkout: pip install ".[mlx]", or choose the '
        f"backend 'cpu' ({error})"
    ) from None

__all__ = [
    "CACHE_BYTES",
    "Counted",
    "allocate",
    "as_type",
    "device_facts",
    "limit_memory",
    "mx",
    "on_gpu",
    "options",
]

CACHE_BYTES = 64 << 20
"""Freed buffers that MLX may keep for use again: enough for a chunk's activations."""

_FLOATS = {Type.F32: mx.float32, Type.F16: mx.float16, Type.BF16: mx.bfloat16}
_STORED = {32: mx.uint32, 16: mx.uint16}


@cache
def limit_memory() -> None:
    """Say once what MLX may keep. It waits for all that is under way, whatever thread began it."""
    mx.set_cache_limit(CACHE_BYTES)
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


class Counted:
    """MLX's functions, each call of which counts: about as many kernels are launched."""

    def __init__(self, module: Any, work: Work) -> None:
        self._module, self._work = module, work

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._work.operations += 1
            return function(*args, **kwargs)

        setattr(self, name, call)
        return call


def as_type(ops: Any, x: Array, dtype: Any) -> Array:
    """``x`` in a type, converted if it is of another."""
    return x if x.dtype == dtype else ops.astype(x, dtype)


def on_gpu() -> bool:
    """Whether MLX computes on a GPU: Apple's, or with its CUDA build NVIDIA's."""
    return bool(mx.default_device() == mx.Device(mx.gpu))


def options(layout: MLXLayout) -> dict[str, Any]:
    """What MLX's quantised functions are to be told of a layout."""
    return {"group_size": layout.group, "bits": layout.bits, "mode": layout.mode}


def allocate(type: Type, shape: tuple[int, ...]) -> Weight:
    """Memory for a weight: arrays that MLX reads, and the same bytes for the encoder to write."""
    layout, (*lead, columns) = layout_of(type), shape
    codes, scales, _ = layout.parts(columns)
    if layout.mode == "float":
        stored = mx.zeros(shape, dtype=_STORED[layout.bits])
        return Weight(type, layout, shape, (stored.view(_FLOATS[type]),), _memory(stored))
    arrays = [mx.zeros((*lead, codes // 4), dtype=mx.uint32)]
    if layout.mode != "affine":
        arrays.append(mx.zeros((*lead, scales), dtype=mx.uint8))
    else:
        arrays += [mx.zeros((*lead, scales // 4), dtype=mx.float32) for _ in range(2)]
    return Weight(type, layout, shape, tuple(arrays), _memory(*arrays))


def _memory(*arrays: Array) -> tuple[Any, Any, Any]:
    """The bytes of evaluated arrays, in which memory is one for CPU and GPU."""
    mx.eval(*arrays)
    views = [np.array(array, copy=False).reshape(-1).view(np.uint8) for array in arrays]
    views += [np.empty(0, np.uint8)] * (3 - len(views))
    return views[0], views[1], views[2]


def device_facts() -> dict[str, str | int | bool | None]:
    """What MLX runs on; sizes in bytes, None where there is no Metal.

    Source: the keys of ``mlx.core.device_info``, documented for Metal; CUDA has the name alike.
    """
    metal = mx.metal.is_available()
    info = mx.device_info()
    most = info.get("max_recommended_working_set_size") if metal else None
    return {
        "metal": metal,
        "cuda": mx.cuda.is_available(),
        "device": str(info.get("device_name", "unknown")),
        "recommended_bytes": None if most is None else int(most),
    }
