"""MLX: the GPU of Apple Silicon; on Linux its CPU, which serves to test what is written here.

Owns the arithmetic as MLX has it, when it is evaluated, and the memory of weights; how GGUF blocks
are laid out there is in ``mlx_weights``. The only module that imports MLX.

Everything is lazy but ``route``: a layer's router must reach the CPU before its experts can be
fetched, so it waits once a layer. What experts lie in is not to change while it may still be read:
``route`` sees to it that the layers before are done, and only then are slots given away.

Source: https://ml-explore.github.io/mlx, version 0.32, for what each function computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.base import Array, Arrivals, ExpertTensors, RopeStyle, StreamedExperts, Work
from moestream.backends.kv_rows import KVType
from moestream.backends.mlx_weights import (
    GROUP,
    LAYOUTS,
    ExpertStack,
    Layout,
    Weight,
    laid_out_bytes,
    layout_of,
)
from moestream.backends.reference import ReferenceBackend
from moestream.errors import UnsupportedModelError
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType as Type
from moestream.quants import dequantize

try:
    import mlx.core as mx
except ImportError as error:
    raise UnsupportedModelError(
        'the mlx backend needs MLX; install it with: pip install "moestream[mlx]", or choose the '
        f"backend 'cpu' ({error})"
    ) from None

_CACHE_BYTES = 64 << 20
"""Freed buffers that MLX may keep for use again: enough for a chunk's activations."""
_KV_TYPES = {"f16": mx.float16, "f32": mx.float32}
_FLOATS = {Type.F32: mx.float32, Type.F16: mx.float16, Type.BF16: mx.bfloat16}
_STORED = {32: mx.uint32, 16: mx.uint16}


class _Counted:
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


@dataclass(slots=True)
class MlxExperts:
    """A layer's experts: all of them in a stack of its own, made when first asked for.

    Streamed, the stack is the residency's, and ``addresses`` (N, 3) have the slot of each expert.
    """

    mapped: ExpertTensors
    stack: ExpertStack | None
    addresses: NDArray[np.uint64] | None

    def slots(self, ids: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Where experts are now."""
        places = ids if self.addresses is None else self.addresses[ids, 0]
        return places.astype(np.uint32)


class MlxBackend:
    """Every operation on MLX's default device. See ``Backend`` for shapes and meaning."""

    name = "mlx"

    def __init__(self) -> None:
        self.work = Work()
        self._mx: Any = _Counted(mx, self.work)
        self._fast: Any = _Counted(mx.fast, self.work)
        self._router = ReferenceBackend()
        self._begun: list[Array] = []
        """To be computed by the end of the next wait: among it, what may still read experts."""
        self._known: list[Array] = []
        """What the last wait was for, and what came from the CPU since."""
        self._angles: tuple[Any, Array, Array] | None = None
        mx.set_cache_limit(_CACHE_BYTES)
        self._has_gpu = mx.metal.is_available()
        if self._has_gpu:
            mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))

    def resident_bytes(self, type: Type, shape: tuple[int, ...]) -> int:
        """As it is laid out, which is more than in the file."""
        return laid_out_bytes(type, shape)

    def matrix(self, tensor: Tensor) -> Weight:
        """Lay the blocks out in MLX's memory."""
        weight = _allocate(tensor.type, tensor.shape)
        weight.fill(tensor.data)
        return weight

    def vector(self, tensor: Tensor) -> Array:
        """Decode a small tensor."""
        return mx.array(dequantize(tensor.data, tensor.type))

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> MlxExperts:
        """Experts in slots, or, once they are used, a stack of all."""
        if isinstance(tensors, StreamedExperts):
            return MlxExperts(tensors.mapped, tensors.slots, tensors.addresses)
        return MlxExperts(tensors, None, None)

    def expert_slots(self, tensors: ExpertTensors, num_slots: int) -> ExpertStack:
        """Stacks of ``num_slots`` experts of this shape, for native threads to fill.

        Raises:
            UnsupportedModelError: of a type that they cannot lay out.
        """
        parts = (tensors.gate, tensors.up, tensors.down)
        for part in parts:
            if part.type not in LAYOUTS:
                raise UnsupportedModelError(
                    f"{part.name}: experts of type {part.type.name} cannot be streamed by the mlx "
                    "backend; choose the backend 'cpu', or a budget in which all of them fit"
                )
        return ExpertStack(*(_allocate(p.type, (num_slots, *p.shape[1:])) for p in parts))

    def embed(self, table: Weight, tokens: NDArray[np.int32]) -> Array:
        """Decode the rows asked for."""
        ids = self._to_device(tokens)
        rows = [self._mx.take(array, ids, axis=0) for array in table.arrays]
        if table.layout.mode == "float":
            return rows[0].astype(mx.float32)
        return self._mx.dequantize(*rows, **_options(table.layout), dtype=mx.float32)  # (T, E)

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """Multiply with the codes, or in a float weight's own type."""
        if weight.layout.mode == "float":
            (floats,) = weight.arrays
            out = self._mx.matmul(self._as(x, floats.dtype), floats.T)
            out = self._as(out, mx.float32)
        else:
            out = self._mx.quantized_matmul(x, *weight.arrays, **_options(weight.layout))
        return out if bias is None else self._mx.add(out, bias)  # (T, rows)

    def linears(self, x: Array, weights: list[Weight], biases: list[Array | None]) -> list[Array]:
        """One after the other."""
        return [self.linear(x, *pair) for pair in zip(weights, biases, strict=True)]

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x^2) + eps) * weight``."""
        return self._fast.rms_norm(x, weight, eps)

    def rope(
        self, x: Array, cos: NDArray[np.float32], sin: NDArray[np.float32], style: RopeStyle
    ) -> Array:
        """Turn pairs of coordinates; what lies beyond the rotary dimensions passes through."""
        c, s = self._angles_of(cos, sin)  # (T, 1, D/2)
        half = cos.shape[1]
        turned, rest = x[..., : 2 * half], x[..., 2 * half :]
        if style == "interleaved":
            a, b = turned[..., 0::2], turned[..., 1::2]
        else:
            a, b = turned[..., :half], turned[..., half:]
        ops = self._mx
        first = ops.subtract(ops.multiply(a, c), ops.multiply(b, s))
        second = ops.add(ops.multiply(a, s), ops.multiply(b, c))
        if style == "interleaved":
            pairs = ops.stack([first, second], axis=-1).reshape(turned.shape)
            return pairs if not rest.size else ops.concatenate([pairs, rest], axis=-1)
        return ops.concatenate([first, second, *([rest] if rest.size else [])], axis=-1)

    def kv_buffer(self, heads: int, positions: int, dim: int, kv_type: KVType) -> Array:
        """Zeros, float16 or float32.

        Raises:
            UnsupportedModelError: ``q8_0``, which MLX's attention does not read.
        """
        if kv_type not in _KV_TYPES:
            raise UnsupportedModelError(
                f"the mlx backend stores keys and values as f16 or f32, not as {kv_type} "
                "(--cache-type-k, --cache-type-v); the backend 'cpu' can"
            )
        return mx.zeros((heads, positions, dim), dtype=_KV_TYPES[kv_type])

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array,
        keys: Array,
        values: Array,
        start: int,
        scale: float,
    ) -> Array:
        """MLX's own, in the type of keys and values: its kernels read the cache as it lies."""
        tokens = q.shape[0]
        stop = start + tokens
        # MLX writes into the buffer where nothing else holds it, and nothing does.
        for buffer, new in ((keys, k), (values, v)):
            buffer[:, start:stop] = self._as(new.swapaxes(0, 1), buffer.dtype)
            self.work.operations += 1
        dtype = keys.dtype if keys.dtype == values.dtype else mx.float32
        out = self._fast.scaled_dot_product_attention(
            self._as(q.swapaxes(0, 1)[None], dtype),
            self._as(keys[None, :, :stop], dtype),
            self._as(values[None, :, :stop], dtype),
            scale=scale,
            mask="causal" if tokens > 1 else None,
        )
        return self._as(out[0].swapaxes(0, 1).reshape(tokens, -1), mx.float32)  # (T, H * D)

    def add(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.add(a, b)

    def swiglu(self, gate: Array, up: Array) -> Array:
        """``gate * sigmoid(gate) * up``."""
        ops = self._mx
        return ops.multiply(ops.multiply(gate, ops.sigmoid(gate)), up)

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``."""
        return self._mx.multiply(x, self._mx.sigmoid(logits))

    def route(self, logits: Array, k: int, *, normalise: bool) -> tuple[NDArray[np.int32], Array]:
        """Wait for the logits, and choose on the CPU as the reference does: they are few."""
        found = self._wait_for(logits)
        ids, weights = self._router.route(found, k, normalise=normalise)
        on_device = self._to_device(weights)
        self._known.append(on_device)
        return ids, on_device

    def moe_ffn(
        self,
        x: Array,
        experts: MlxExperts,
        ids: NDArray[np.int32],
        weights: Array,
        arrivals: Arrivals | None = None,
    ) -> Array:
        """A batch of experts at a time, one call for each of its three matrices."""
        if experts.stack is None:
            experts.stack = self.expert_stack(experts.mapped)
        flat = ids.ravel()
        missing = set(flat.tolist())
        batches: list[Sequence[int]] = [list(missing)]
        outs, orders = [], []
        for batch in batches if arrivals is None else arrivals:
            pairs = np.flatnonzero(np.isin(flat, batch))
            slots = experts.slots(flat[pairs])
            order = np.argsort(slots, kind="stable") if len(ids) > 1 else np.arange(len(pairs))
            tokens = pairs[order] // ids.shape[1]
            outs.append(self._run(x, experts.stack, tokens, slots[order]))
            orders.append(pairs[order])
            missing.difference_update(batch)
            if missing:  # the next batch may be read into these slots
                self._evaluate(outs[-1])
        out = self._in_order(outs, np.concatenate(orders)).reshape(*ids.shape, -1)  # (T, k, E)
        total = self._mx.sum(self._mx.multiply(out, weights[..., None]), axis=1)
        self._begun.append(total)
        return total  # (T, E)

    def begin(self, x: Array) -> None:
        """Hand the work to the device, and go on."""
        mx.async_eval(x)  # type: ignore[no-untyped-call]
        self._begun.append(x)

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """Wait for the values."""
        return self._wait_for(x)

    def expert_stack(self, tensors: ExpertTensors) -> ExpertStack:
        """All experts of a layer, laid out."""
        parts = (tensors.gate, tensors.up, tensors.down)
        stack = ExpertStack(*(_allocate(part.type, part.shape) for part in parts))
        stack.fill(tensors)
        return stack

    def _run(
        self,
        x: Array,
        stack: ExpertStack,
        tokens: NDArray[np.int64],
        slots: NDArray[np.uint32],
    ) -> Array:
        """Outputs (P, E) of the experts in ``slots`` (P,) for ``tokens`` (P,)."""
        many = len(x) > 1
        rows = self._mx.take(x, self._to_device(tokens.astype(np.int32)), axis=0) if many else x
        places = self._to_device(slots)
        rows = rows[:, None]
        gate = self._gather(rows, stack.gate, places, many)
        up = self._gather(rows, stack.up, places, many)
        return self._gather(self.swiglu(gate, up), stack.down, places, many)[:, 0]

    def _gather(self, x: Array, weight: Weight, slots: Array, sorted_slots: bool) -> Array:
        """Each row of x (P or 1, 1, columns) with the matrix in its slot: (P, 1, rows)."""
        options = {"rhs_indices": slots, "sorted_indices": sorted_slots}
        if weight.layout.mode != "float":
            return self._mx.gather_qmm(x, *weight.arrays, **options, **_options(weight.layout))
        (floats,) = weight.arrays
        x, matrices = self._as(x, floats.dtype), floats.swapaxes(1, 2)
        if weight.layout.bits == 32 or self._has_gpu:
            out = self._mx.gather_mm(x, matrices, **options)
        else:  # on a CPU, MLX gathers no other floats
            out = self._mx.matmul(x, self._mx.take(matrices, slots, axis=0))
        return self._as(out, mx.float32)

    def _in_order(self, outs: list[Array], order: NDArray[np.int64]) -> Array:
        """Rows by (token, slot), of which ``order`` says where they came from."""
        out = outs[0] if len(outs) == 1 else self._mx.concatenate(outs)
        if np.array_equal(order, np.arange(len(order))):
            return out
        back = np.empty(len(order), np.int32)
        back[order] = np.arange(len(order))
        return self._mx.take(out, self._to_device(back), axis=0)

    def _angles_of(self, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> tuple[Array, Array]:
        """A chunk's angles, which all layers share, copied once."""
        if self._angles is None or self._angles[0] is not cos:
            self._angles = (cos, self._to_device(cos)[:, None], self._to_device(sin)[:, None])
        return self._angles[1:]

    def _as(self, x: Array, dtype: mx.Dtype) -> Array:
        return x if x.dtype == dtype else self._mx.astype(x, dtype)

    def _to_device(self, values: NDArray[Any]) -> Array:
        self.work.copied_bytes += values.nbytes
        return mx.array(values)

    def _wait_for(self, x: Array) -> NDArray[np.float32]:
        if not any(x is known for known in self._known):
            self._evaluate(x)
        self.work.copied_bytes += x.nbytes
        return np.array(x)

    def _evaluate(self, *arrays: Array) -> None:
        """Compute these and all that was begun: the one place that waits."""
        self._known, self._begun = [*arrays, *self._begun], []
        mx.eval(*self._known)
        self.work.synchronisations += 1


def device_facts() -> dict[str, str | int | bool | None]:
    """What MLX runs on; sizes in bytes, None where there is no Metal.

    Source: the keys of ``mlx.core.device_info``, documented for Metal.
    """
    metal = mx.metal.is_available()
    info = mx.device_info()
    most = info.get("max_recommended_working_set_size") if metal else None
    return {
        "metal": metal,
        "device": str(info.get("device_name", "unknown")),
        "recommended_bytes": None if most is None else int(most),
    }


def _options(layout: Layout) -> dict[str, Any]:
    return {"group_size": GROUP, "bits": layout.bits, "mode": layout.mode}


def _allocate(type: Type, shape: tuple[int, ...]) -> Weight:
    """Memory for a weight: arrays that MLX reads, and the same bytes for the encoder to write."""
    layout, (*lead, columns) = layout_of(type), shape
    codes, scales, _ = layout.parts(columns)
    if layout.mode == "float":
        stored = mx.zeros(shape, dtype=_STORED[layout.bits])
        return Weight(type, layout, shape, (stored.view(_FLOATS[type]),), _memory(stored))
    arrays = [mx.zeros((*lead, codes // 4), dtype=mx.uint32)]
    if layout.mode == "mxfp4":
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
