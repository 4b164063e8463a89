"""Types of the compiled kernels (moestream/native); arguments are checked when called.

Arrays are C-contiguous, of exactly the type written here; results go into the arrays called
``out``, ``ids`` and ``weights``.

Raises:
    TypeError: an array of another type or layout.
    ValueError: a shape, value or layout that does not fit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

def physical_cores() -> int: ...
def available_isas() -> list[str]: ...
def supports(type: int) -> bool: ...
def watch_mapping(begin: int, bytes: int) -> int: ...
def missing_pages(mapping: int) -> int: ...
def forget_mapping(mapping: int) -> None: ...
def mlx_encode(
    data: Bytes, type: int, bits: int, codes: Bytes, scales: Bytes, biases: Bytes, threads: int
) -> None: ...

class Matrix:
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...

class Experts:
    def __init__(
        self,
        gate: Bytes,
        gate_type: int,
        up: Bytes,
        up_type: int,
        down: Bytes,
        down_type: int,
        activation: str = "silu",
        gate_bias: Floats | None = None,
        up_bias: Floats | None = None,
        down_bias: Floats | None = None,
        gate_scale: Floats | None = None,
        up_scale: Floats | None = None,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> None: ...
    def streamed(self, addresses: NDArray[np.uint64]) -> Experts: ...

BLOCK_POSITIONS: int

class KVPass:
    def __init__(
        self, sequences: list[tuple[NDArray[np.uint64], int, int]], block_bytes: int
    ) -> None: ...

class KVPlace:
    def __init__(
        self, key_offset: int, value_offset: int, key_type: int, value_type: int
    ) -> None: ...

class Context:
    def __init__(self, threads: int, isa: str | None = None) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    def matrix(self, data: Bytes, type: int, scale: float = 1.0) -> Matrix: ...
    def mapped_matrix(self, data: Bytes, type: int) -> Matrix: ...
    def linear(
        self, x: Floats, weights: list[Matrix], outs: list[Floats], biases: list[Floats | None]
    ) -> None: ...
    def heads_linear(self, x: Floats, weights: list[Matrix], out: Floats) -> None: ...
    def moe_ffn(
        self, x: Floats, experts: Experts, ids: Ints, weights: Floats, out: Floats
    ) -> None: ...
    def run_experts(
        self, x: Floats, experts: Experts, ids: Ints, batch: list[int], outputs: Floats
    ) -> None: ...
    def sum_slots(self, outputs: Floats, weights: Floats, out: Floats) -> None: ...
    def attention(
        self,
        q: Floats,
        k: Floats,
        v: Floats | None,
        kv_pass: KVPass,
        place: KVPlace,
        scale: float,
        window: int,
        sinks: Floats | None,
        out: Floats,
        seen: Bytes | None = None,
        cap: float = 0.0,
    ) -> None: ...
    def embed(self, table: Matrix, tokens: Ints, out: Floats) -> None: ...
    def rms_norm(self, x: Floats, weight: Floats, eps: float, out: Floats) -> None: ...
    def rope(self, x: Floats, cos: Floats, sin: Floats, interleaved: bool, out: Floats) -> None: ...
    def add(self, a: Floats, b: Floats, out: Floats) -> None: ...
    def exponentials(self, x: Floats, out: Floats) -> None: ...
    def softplus(self, x: Floats, out: Floats) -> None: ...
    def sigmoid_scale(self, x: Floats, logits: Floats, out: Floats) -> None: ...
    def read_streams(
        self,
        x: Floats,
        norm: Floats,
        eps: float,
        down: Matrix,
        up: Matrix,
        inject: Matrix | None,
        out: Floats,
        scales: Floats,
    ) -> None: ...
    def write_streams(self, x: Floats, added: Floats, scales: Floats, out: Floats) -> None: ...
    def glu(
        self,
        gate: Floats,
        up: Floats,
        activation: str,
        out: Floats,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> None: ...
    def route(
        self,
        logits: Floats,
        normalise: bool,
        gating: str,
        scale: float,
        groups: int,
        groups_used: int,
        bias: Floats | None,
        ids: Ints,
        weights: Floats,
    ) -> None: ...
    def causal_conv(
        self,
        x: Floats,
        kernel: Floats,
        past: Floats,
        silu: bool,
        out: Floats,
        bias: Floats | None = None,
    ) -> None: ...
    def delta_net(
        self,
        qkv: Floats,
        write: Floats,
        forget: Floats,
        rates: Floats,
        time_bias: Floats,
        key_heads: Ints,
        num_key_heads: int,
        eps: float,
        state: Floats,
        out: Floats,
    ) -> None: ...
    def kimi_delta(
        self, qkv: Floats, write: Floats, decay: Floats, eps: float, state: Floats, out: Floats
    ) -> None: ...
    def mamba(
        self,
        x: Floats,
        steps: Floats,
        b: Floats,
        c: Floats,
        rates: Floats,
        time_bias: Floats,
        skips: Floats,
        state: Floats,
        out: Floats,
    ) -> None: ...
    def mamba2(
        self,
        xbc: Floats,
        steps: Floats,
        rates: Floats,
        time_bias: Floats,
        skips: Floats,
        groups: int,
        state: Floats,
        out: Floats,
    ) -> None: ...
    def read_bandwidth(self, bytes: int, repeats: int = 5) -> float: ...

class Gate:
    """A layer's router and its norm."""

    def __init__(
        self,
        norm: Floats,
        eps: float,
        router: Matrix,
        bias: Floats | None,
        selection: Floats | None,
        normalise: bool,
        gating: str,
        scale: float,
        groups: int,
        groups_used: int,
        k: int,
    ) -> None: ...

class Gates:
    """Gates of layers in their order; see ``core/gates.h``."""

    def __init__(self, context: Context, gates: Sequence[Gate]) -> None: ...
    def note(self, place: int, x: Floats) -> None: ...
    def choose(self, place: int, x: Floats, ahead: int) -> list[list[int]]: ...

class Reader:
    """Background reads; see ``moestream.streaming.reader``, which is all that uses it."""

    def __init__(
        self, ranges: NDArray[np.int64], threads: int, piece_bytes: int, mapped: bool
    ) -> None: ...
    @property
    def states(self) -> Bytes: ...
    def encode(self, matrices: NDArray[np.int64], staging_bytes: int) -> None: ...
    def submit(self, key: int, destination: int, speculative: bool, generation: int) -> None: ...
    def cancel_before(self, generation: int) -> list[int]: ...
    def forget(self, key: int) -> None: ...
    def wait_any(self, keys: Sequence[int]) -> list[int]: ...
    def error(self, key: int) -> int: ...
    def resident(self, key: int) -> bool: ...
    def lock(self, key: int, on: bool) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def inject(self, error: int = 0, delay_s: float = 0.0) -> None: ...
    def close(self) -> None: ...
