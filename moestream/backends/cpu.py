"""The native backend: GGUF blocks multiplied where they lie, by the kernels of ``_native``.

Owns the arrays that results go into and the choice of instruction set. The arithmetic, threads and
checks are in ``moestream/native``; what a layer does with the operations is not known here. All
types that matrices may be stored in have a kernel.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from moestream.backends.compressed import Compressing
from moestream.backends.expert_tensors import Arrivals, ExpertTensors, StreamedExperts
from moestream.backends.kv_blocks import BlockStores, Rows
from moestream.backends.kv_rows import GGML_TYPES
from moestream.backends.numpy_arrays import Floats
from moestream.backends.reference_experts import weigh
from moestream.backends.sparse import Chosen, choose_in_blocks
from moestream.backends.types import (
    QKV,
    Activation,
    AttentionRule,
    Gates,
    IndexQueries,
    RopeStyle,
    Routed,
    RouterGate,
    Routing,
)
from moestream.errors import ResourceError, UnsupportedModelError
from moestream.gguf import Tensor
from moestream.quants import dequantize

try:
    from moestream import _native
    from moestream.backends.cpu_recurrent import RecurrentKernels
except ImportError as error:
    raise UnsupportedModelError(
        "the native kernels are not compiled; install moestream with pip, or choose the backend "
        f"'reference' ({error})"
    ) from None


@dataclass(frozen=True, slots=True)
class CpuPass:
    """The sequences of a pass, and where each layer's keys and values lie in their blocks."""

    native: _native.KVPass
    places: list[Any]
    parts: Sequence[tuple[Any, int, int]]


class CpuBackend(RecurrentKernels, Compressing):
    """Every operation in native code, on ``threads`` threads (one a physical core by default).

    The environment variable ``MOESTREAM_ISA`` forces an instruction set.

    Raises:
        UnsupportedModelError: an instruction set or number of threads that cannot be.
    """

    name = "cpu"
    keeps_bits = True
    scratch_bytes = 0

    def __init__(self, threads: int | None = None) -> None:
        isa = os.environ.get("MOESTREAM_ISA") or None
        try:
            self._run = _native.Context(
                _native.physical_cores() if threads is None else threads, isa
            )
        except ValueError as error:
            raise UnsupportedModelError(str(error)) from None
        except RuntimeError as error:  # std::system_error
            raise ResourceError(
                f"{threads} threads cannot be started: {error}; give -t a smaller number, or raise "
                "the limit of processes or memory (ulimit -a)"
            ) from None
        self.threads = self._run.threads
        self.isa = self._run.isa
        self._places: WeakKeyDictionary[BlockStores, list[Any]] = WeakKeyDictionary()

    def matrix(self, tensor: Tensor) -> _native.Matrix:
        """Copy the blocks into memory that the page cache cannot lose, in the kernels' order."""
        return self._run.matrix(tensor.data, int(tensor.type), tensor.scale)

    def head_matrices(self, tensors: list[Tensor]) -> list[_native.Matrix]:
        """Copy each, as ``matrix`` does."""
        return [self.matrix(tensor) for tensor in tensors]

    def embedding(self, tensor: Tensor) -> _native.Matrix:
        """Leave the blocks where they lie: a row is a page or two."""
        return self._run.mapped_matrix(tensor.data, int(tensor.type))

    def vector(self, tensor: Tensor) -> Floats:
        """Decode a small tensor, into memory that the page cache cannot lose."""
        # Under a memory cap each mapped norm was a fault a token, with all that readahead brings.
        return np.array(dequantize(tensor.data, tensor.type))

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> _native.Experts:
        """Check the experts' layout; their blocks stay where they lie."""
        told = tensors.mapped
        biases = told.biases or (None, None, None)
        scales = told.scales or (None, None)
        experts = _native.Experts(
            told.gate.data,
            int(told.gate.type),
            told.up.data,
            int(told.up.type),
            told.down.data,
            int(told.down.type),
            told.activation,
            biases[0],
            biases[1],
            biases[2],
            scales[0],
            scales[1],
            told.limit,
            told.up_limit,
        )
        if isinstance(tensors, StreamedExperts):
            return experts.streamed(tensors.addresses)
        return experts

    def gates(self, gates: Sequence[RouterGate]) -> Gates | None:
        """All in one call."""
        return _native.Gates(self._run, [_gate(gate) for gate in gates])

    def embed(self, table: _native.Matrix, tokens: NDArray[np.int32]) -> Floats:
        """Decode the rows asked for."""
        out = np.empty((len(tokens), table.columns), np.float32)
        self._run.embed(table, tokens, out)
        return out  # (T, E)

    def linear(self, x: Floats, weight: _native.Matrix, bias: Floats | None = None) -> Floats:
        """Multiply int8 input with blocks, or float input with float weights."""
        out = np.empty((len(x), weight.rows), np.float32)
        self._run.linear(x, [weight], [out], [bias])
        return out  # (T, rows)

    def linears(
        self, x: Floats, weights: list[_native.Matrix], biases: list[Floats | None]
    ) -> list[Floats]:
        """Quantise the input once, and share all rows out among the threads at once."""
        outs = [np.empty((len(x), weight.rows), np.float32) for weight in weights]
        self._run.linear(x, weights, outs, biases)
        return outs

    def heads_linear(self, x: Floats, weights: list[_native.Matrix]) -> Floats:
        """Share the rows of all heads out among the threads at once."""
        out = np.empty((*x.shape[:2], weights[0].rows), np.float32)
        self._run.heads_linear(x, weights, out)
        return out  # (T, H, rows)

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        """``x / sqrt(mean(x^2) + eps) * weight``."""
        out = np.empty_like(x)
        self._run.rms_norm(x, weight, eps, out)
        return out

    def rope(self, x: Floats, cos: Floats, sin: Floats, style: RopeStyle) -> Floats:
        """Turn pairs of coordinates; what lies beyond the rotary dimensions passes through."""
        out = np.empty_like(x)
        self._run.rope(x, cos, sin, style == "interleaved", out)
        return out  # (T, H, D)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> CpuPass:
        """Addresses of blocks: a layer of a pass is one call, however many sequences there are."""
        stores = parts[0][0].stores
        if stores not in self._places:
            self._places[stores] = [layer and _place(*layer) for layer in stores.layers]
        sequences = [(store.addresses, start, rows) for store, start, rows in parts]
        native = _native.KVPass(sequences, stores.block_bytes)
        return CpuPass(native, self._places[stores], parts)

    def attention(
        self, qkv: QKV, kv_pass: CpuPass, layer: int, rule: AttentionRule, seen: Chosen = None
    ) -> Floats:
        """One pass over the cache with a running softmax, in fixed splits of positions."""
        (tokens, heads, _), v = qkv[0].shape, qkv[2]
        out = np.empty((tokens, heads * (rule.value_dim if v is None else v.shape[2])), np.float32)
        where = kv_pass.native, kv_pass.places[layer]
        self._run.attention(*qkv, *where, rule.scale, rule.window, rule.sinks, out, seen, rule.cap)
        return out  # (T, H * Dv)

    def choose(self, index: IndexQueries, k: Floats, kv_pass: CpuPass, layer: int) -> Chosen:
        """See ``sparse``."""
        return choose_in_blocks(index, k, kv_pass.parts, layer, self)

    def add(self, a: Floats, b: Floats) -> Floats:
        """Element by element."""
        out = np.empty_like(a)
        self._run.add(a, b, out)
        return out

    def glu(
        self,
        gate: Floats,
        up: Floats,
        activation: Activation,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> Floats:
        """See ``Activation``."""
        out = np.empty_like(gate)
        self._run.glu(gate, up, activation, out, limit, up_limit)
        return out

    def route(self, logits: Floats, routing: Routing) -> Routed:
        """Gate, then the k largest one by one."""
        ids = np.empty((len(logits), routing.k), np.int32)
        weights = np.empty((len(logits), routing.k), np.float32)
        self._run.route(
            logits,
            routing.normalise,
            routing.gating,
            routing.scale,
            routing.groups,
            routing.groups_used,
            routing.selection_bias,
            ids,
            weights,
        )
        scales = routing.expert_scales
        return ids, weights if scales is None else weights * scales[ids]

    def weigh(self, logits: Floats, ids: NDArray[np.int32], routing: Routing) -> Routed:
        """See ``reference_experts``: a few numbers a token."""
        return weigh(logits, ids, routing, self)

    def moe_ffn(
        self, x: Floats, experts: _native.Experts, routed: Routed, arrivals: Arrivals | None = None
    ) -> Floats:
        """Expert by expert, each one's blocks read once for all its tokens."""
        out, (ids, weights) = np.empty_like(x), routed
        if arrivals is None:
            self._run.moe_ffn(x, experts, ids, weights, out)
            return out  # (T, E)
        outputs = np.empty((*ids.shape, x.shape[1]), np.float32)  # (T, k, E)
        for batch in arrivals:
            self._run.run_experts(x, experts, ids, list(batch), outputs)
        self._run.sum_slots(outputs, weights, out)
        return out


def _gate(gate: RouterGate) -> _native.Gate:
    rule = gate.routing
    return _native.Gate(
        gate.norm,
        gate.eps,
        gate.router,
        gate.bias,
        rule.selection_bias,
        rule.normalise,
        rule.gating,
        rule.scale,
        rule.groups,
        rule.groups_used,
        rule.k,
    )


def _place(keys: Rows, values: Rows | None) -> _native.KVPlace:
    other = values or keys
    types = GGML_TYPES[keys.kv_type], GGML_TYPES[other.kv_type]
    return _native.KVPlace(keys.offset, other.offset, *types)
