"""MLX: the GPU of Apple Silicon; on Linux its CPU, which serves to test what is written here.

Owns the arithmetic as MLX has it, and when it is evaluated; experts, attention and recurrent
layers have files of their own beside this one.

Everything is lazy but ``route``: a layer's router must reach the CPU before its experts can be
fetched, so it waits once a layer. What experts lie in is not to change while it may still be read:
``route`` sees to it that the layers before are done, and only then are slots given away.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends import mlx_recurrent
from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.mlx_attention import Masks, Span, attend, attend_within, write_rows
from moestream.backends.mlx_core import Counted, allocate, as_type, mx, options
from moestream.backends.mlx_experts import Batch, MlxExperts, empty_slots, gather
from moestream.backends.mlx_kv import MlxStores
from moestream.backends.mlx_weights import MLXSlots, Weight, laid_out_bytes
from moestream.backends.reference import ReferenceBackend
from moestream.backends.sparse import choose
from moestream.backends.types import (
    Activation,
    Array,
    Arrivals,
    AttentionRule,
    DeltaRule,
    ExpertTensors,
    IndexQueries,
    KVPass,
    Mamba2Rule,
    MambaRule,
    RopeStyle,
    Routing,
    StreamedExperts,
    Work,
)
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType as Type
from moestream.quants import dequantize

_CACHE_BYTES = 64 << 20
"""Freed buffers that MLX may keep for use again: enough for a chunk's activations."""
_async_eval: Any = mx.async_eval  # which has no types where there is MLX


class MlxBackend:
    """Every operation on MLX's default device. See ``Backend`` for shapes and meaning."""

    name = "mlx"
    scratch_bytes = _CACHE_BYTES

    def __init__(self) -> None:
        self.work = Work()
        self._mx: Any = Counted(mx, self.work)
        self._fast: Any = Counted(mx.fast, self.work)
        self._router = ReferenceBackend()
        self._begun: list[Array] = []
        """To be computed by the end of the next wait: among it, what may still read experts."""
        self._known: list[Array] = []
        """What the last wait was for, and what came from the CPU since."""
        self._angles: dict[int, tuple[Any, Array, Array]] = {}
        self._masks = Masks(self._to_device)
        mx.set_cache_limit(_CACHE_BYTES)
        if mx.metal.is_available():
            mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))

    def resident_bytes(self, type: Type, shape: tuple[int, ...]) -> int:
        """As it is laid out, which is more than in the file."""
        return laid_out_bytes(type, shape)

    def matrix(self, tensor: Tensor) -> Weight:
        """Lay the blocks out in MLX's memory."""
        weight = replace(allocate(tensor.type, tensor.shape), scale=tensor.scale)
        weight.fill(tensor.data)
        return weight

    def head_matrices(self, tensors: list[Tensor]) -> Weight:
        """Lay them out one after the other, as one stack."""
        stack = allocate(tensors[0].type, (len(tensors), *tensors[0].shape))
        for head, tensor in enumerate(tensors):
            stack.fill(tensor.data, head)
        return stack

    def embedding(self, tensor: Tensor) -> Tensor:
        """Keep the blocks as they are in the file."""
        return tensor

    def vector(self, tensor: Tensor) -> Array:
        """Decode a small tensor."""
        return mx.array(dequantize(tensor.data, tensor.type))

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> MlxExperts:
        """See ``MlxExperts.of``."""
        return MlxExperts.of(tensors)

    def expert_slots(self, tensors: ExpertTensors, num_slots: int) -> MLXSlots:
        """See ``empty_slots``."""
        return empty_slots(tensors, num_slots)

    def embed(self, table: Weight | Tensor, tokens: NDArray[np.int32]) -> Array:
        """Decode the rows asked for."""
        if isinstance(table, Tensor):
            return self._to_device(dequantize(table.data[tokens], table.type))
        ids = self._to_device(tokens)
        rows = [self._mx.take(array, ids, axis=0) for array in table.arrays]
        if table.layout.mode == "float":
            return as_type(self._mx, rows[0], mx.float32)
        return self._mx.dequantize(*rows, **options(table.layout), dtype=mx.float32)  # (T, E)

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """Multiply with the codes, or in a float weight's own type."""
        if weight.layout.mode == "float":
            (floats,) = weight.arrays
            out = self._mx.matmul(as_type(self._mx, x, floats.dtype), floats.swapaxes(-1, -2))
            out = as_type(self._mx, out, mx.float32)
        else:
            out = self._mx.quantized_matmul(x, *weight.arrays, **options(weight.layout))
        if weight.scale != 1:
            out = self._mx.multiply(out, weight.scale)
        return out if bias is None else self._mx.add(out, bias)  # (T, rows)

    def linears(self, x: Array, weights: list[Weight], biases: list[Array | None]) -> list[Array]:
        """One after the other."""
        return [self.linear(x, *pair) for pair in zip(weights, biases, strict=True)]

    def heads_linear(self, x: Array, weights: Weight) -> Array:
        """One product of stacks."""
        return self.linear(x.swapaxes(0, 1), weights).swapaxes(0, 1)  # (T, H, rows)

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""
        return mx.array(x)

    def split(self, x: Array, size: int) -> tuple[Array, Array]:
        """Views."""
        return x[..., :size], x[..., size:]

    def join(self, a: Array, b: Array) -> Array:
        """A copy."""
        return self._mx.concatenate([a, b], axis=-1)

    def stack_rows(self, parts: Sequence[Array]) -> Array:
        """A copy, unless there is one part alone."""
        return parts[0] if len(parts) == 1 else self._mx.concatenate(parts)

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

    def kv_stores(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> MlxStores:
        """A buffer a layer and sequence, float16 or float32.

        Raises:
            UnsupportedModelError: ``q8_0``, which MLX's attention does not read.
        """
        return MlxStores(shapes, kv_types, capacity)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> KVPass:
        """As they are."""
        return parts

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros."""
        return mx.zeros(shape)

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array | None,
        kv_pass: KVPass,
        layer: int,
        rule: AttentionRule,
        seen: NDArray[np.bool_] | None = None,
    ) -> Array:
        """MLX's own, in the type of keys and values, one sequence after the other."""
        outs, row = [], 0
        for store, start, tokens in kv_pass:
            rows = slice(row, row + tokens)
            span = Span(start, tokens, rule.window)
            new = (k[rows], None if v is None else v[rows])
            chosen = None if seen is None else seen[rows]
            outs.append(self._attend(q[rows], new, store.layers[layer], span, rule, chosen))
            row += tokens
        return self.stack_rows(outs)  # (T, H * D)

    def choose(
        self, index: IndexQueries, k: Array, kv_pass: KVPass, layer: int
    ) -> NDArray[np.bool_] | None:
        """On the CPU, as the reference does."""
        longest = max(start + tokens for _, start, tokens in kv_pass)
        if longest <= index.enough:
            return None
        seen, row = np.zeros((len(k), longest), np.bool_), 0
        queries, weights = self._wait_for(index.queries), self._wait_for(index.weights)
        for store, start, tokens in kv_pass:
            rows, stop = slice(row, row + tokens), start + tokens
            keys = store.layers[layer][0]
            write_rows(self._mx, keys, k[rows], Span(start, tokens, 0))
            behind = index.kept // len(keys)
            past = keys[:, :stop, -behind:].astype(mx.float32).swapaxes(0, 1)
            past = self._wait_for(past.reshape(stop, -1))
            asked = replace(index, queries=queries[rows], weights=weights[rows])
            seen[rows, :stop] = choose(asked, past, start)
            row += tokens
        return seen

    def _attend(
        self,
        q: Array,
        new: tuple[Array, Array | None],
        buffers: tuple[Array, Array | None],
        span: Span,
        rule: AttentionRule,
        seen: NDArray[np.bool_] | None,
    ) -> Array:
        ops, (keys, values) = self._mx, buffers
        write_rows(ops, keys, new[0], span)
        if new[1] is None or values is None:
            values = keys[..., : rule.value_dim]
        else:
            write_rows(ops, values, new[1], span)
        outs: list[Array] = []
        for part in span.parts(q.shape[1]):
            if outs:  # or the scores of all parts would be in memory at once
                self._evaluate(outs[-1])
            rows = slice(part.start - span.start, part.stop - span.start)
            if rule.cap:
                seen_here = self._to_device(part.mask())
                outs.append(attend_within(ops, q[rows], keys, values, part, seen_here, rule))
                continue
            mask = self._masks.of(part)
            if seen is not None:
                mask = self._to_device(seen[rows, part.first : part.stop])
            outs.append(
                attend(ops, self._fast, q[rows], keys, values, part, mask, rule.scale, rule.sinks)
            )
        return self.stack_rows(outs)

    def causal_conv(
        self,
        x: Array,
        kernel: Array,
        past: Array,
        *,
        silu: bool = False,
        bias: Array | None = None,
    ) -> Array:
        """See ``mlx_recurrent``."""
        return mlx_recurrent.causal_conv(self._mx, x, kernel, past, silu=silu, bias=bias)

    def kimi_delta(self, qkv: Array, write: Array, decay: Array, state: Array, eps: float) -> Array:
        """See ``mlx_recurrent``."""
        return mlx_recurrent.kimi_delta(self._mx, qkv, write, decay, state, eps)

    def mamba(
        self, x: Array, steps: Array, b: Array, c: Array, state: Array, rule: MambaRule
    ) -> Array:
        """See ``mlx_recurrent``."""
        return mlx_recurrent.mamba(self._mx, x, steps, b, c, state, rule)

    def mamba2(self, xbc: Array, steps: Array, state: Array, rule: Mamba2Rule) -> Array:
        """See ``mlx_recurrent``."""
        return mlx_recurrent.mamba2(self._mx, xbc, steps, state, rule)

    def delta_net(
        self, qkv: Array, write: Array, forget: Array, state: Array, rule: DeltaRule
    ) -> Array:
        """See ``mlx_recurrent``."""
        key_heads = self._to_device(rule.key_heads)
        return mlx_recurrent.delta_net(self._mx, qkv, write, forget, state, rule, key_heads)

    def add(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.add(a, b)

    def multiply(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.multiply(a, b)

    def scale_rows(self, x: Array, factors: NDArray[np.float32]) -> Array:
        """Broadcast."""
        shape = (-1, *[1] * (x.ndim - 1))
        return self._mx.multiply(x, self._to_device(factors).reshape(shape))

    def clip(self, x: Array, limit: float) -> Array:
        """Element by element."""
        return self._mx.clip(x, -limit, limit)

    def signed_root(self, x: Array, least: float) -> Array:
        """Element by element."""
        root = self._mx.sqrt(self._mx.maximum(self._mx.abs(x), least))
        return self._mx.multiply(self._mx.sign(x), root)

    def sinkhorn(self, logits: Array, iterations: int, eps: float) -> Array:
        """See ``Backend.sinkhorn``."""
        ops = self._mx
        shares = ops.add(ops.softmax(logits, axis=-1), eps)
        for axis in (-2, *(-1, -2) * (iterations - 1)):
            total = ops.add(ops.sum(shares, axis=axis, keepdims=True), eps)
            shares = ops.divide(shares, total)
        return shares

    def softplus(self, x: Array) -> Array:
        """Element by element."""
        return self._mx.logaddexp(x, 0.0)

    def glu(self, gate: Array, up: Array, activation: Activation, limit: float = 0.0) -> Array:
        """See ``Activation``."""
        ops = self._mx
        if activation == "relu":
            return ops.multiply(ops.maximum(gate, 0.0), up)
        if activation == "silu_clamped":
            gate = ops.minimum(gate, limit)
        if activation in ("silu_clamped", "silu_capped"):
            up = self.clip(up, limit)
        if activation in ("silu", "silu_clamped"):
            return ops.multiply(ops.multiply(gate, ops.sigmoid(gate)), up)
        if activation == "silu_capped":
            passed = ops.minimum(ops.multiply(gate, ops.sigmoid(gate)), limit)
            return ops.multiply(passed, up)
        if activation == "gelu":
            bent = ops.add(ops.multiply(ops.multiply(gate, gate), 0.044715), 1)
            inner = ops.multiply(ops.multiply(gate, bent), (2 / np.pi) ** 0.5)
            half = ops.multiply(ops.multiply(gate, 0.5), ops.add(ops.tanh(inner), 1))
            return ops.multiply(half, up)
        gate, up = ops.minimum(gate, 7.0), ops.clip(up, -7.0, 7.0)
        gate = ops.multiply(gate, ops.sigmoid(ops.multiply(gate, 1.702)))
        return ops.multiply(gate, ops.add(up, 1))

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``."""
        return self._mx.multiply(x, self._mx.sigmoid(logits))

    def route(
        self,
        logits: Array,
        routing: Routing,
        selection_bias: NDArray[np.float32] | None = None,
        expert_scales: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], Array]:
        """Wait for the logits, and choose on the CPU as the reference does: they are few."""
        found = self._wait_for(logits)
        ids, weights = self._router.route(found, routing, selection_bias, expert_scales)
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
        missing = set(ids.ravel().tolist())
        batches: list[Sequence[int]] = [list(missing)]
        outs, pairs = [], []
        for wanted in batches if arrivals is None else arrivals:
            batch = Batch.of(ids, wanted, experts)
            outs.append(self._run(x, experts, batch))
            pairs.append(batch.pairs)
            missing.difference_update(wanted)
            if missing:  # the next batch may be read into these slots
                self._evaluate(outs[-1])
        out = self._in_order(outs, np.concatenate(pairs)).reshape(*ids.shape, -1)  # (T, k, E)
        total = self._mx.sum(self._mx.multiply(out, weights[..., None]), axis=1)
        self._begun.append(total)
        return total  # (T, E)

    def begin(self, x: Array) -> None:
        """Hand the work to the device, and go on."""
        _async_eval(x)
        self._begun.append(x)

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """Wait for the values."""
        return self._wait_for(x)

    def _run(self, x: Array, experts: MlxExperts, batch: Batch) -> Array:
        """Outputs (P, E) of a batch's pairs."""
        ops, slots, many = self._mx, experts.loaded(), len(x) > 1
        rows = ops.take(x, self._to_device(batch.tokens), axis=0) if many else x
        places = self._to_device(batch.slots)
        biases, scales = experts.mapped.biases, experts.mapped.scales
        chosen = self._to_device(batch.ids) if biases or scales else None

        def product(x: Array, part: int) -> Array:
            out = gather(ops, x, slots.weights[part], places, many)
            if scales is not None and part < 2:
                out = ops.multiply(out, ops.take(scales[part], chosen)[:, None, None])
            if biases is None:
                return out
            return ops.add(out, ops.take(biases[part], chosen, axis=0)[:, None])

        # No rows[:, None]: that leaves a stride of 1, which sorted float products take for a row's.
        rows = rows.reshape(len(rows), 1, -1)
        mapped = experts.mapped
        inner = self.glu(product(rows, 0), product(rows, 1), mapped.activation, mapped.limit)
        return product(inner, 2)[:, 0]

    def _in_order(self, outs: list[Array], order: NDArray[np.int64]) -> Array:
        """Rows by (token, slot), of which ``order`` says where they came from."""
        out = outs[0] if len(outs) == 1 else self._mx.concatenate(outs)
        if np.array_equal(order, np.arange(len(order))):
            return out
        back = np.empty(len(order), np.int32)
        back[order] = np.arange(len(order))
        return self._mx.take(out, self._to_device(back), axis=0)

    def _angles_of(self, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> tuple[Array, Array]:
        """A chunk's angles, which all layers of one kind share, copied once."""
        made = self._angles.get(cos.shape[1])
        if made is None or made[0] is not cos:
            made = (cos, self._to_device(cos)[:, None], self._to_device(sin)[:, None])
            self._angles[cos.shape[1]] = made
        return made[1:]

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
