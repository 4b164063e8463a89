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

def physical_cores() -> int: ...
def available_isas() -> list[str]: ...
def supports(type: int) -> bool: ...
def watch_mapping(begin: int, bytes: int) -> int: ...
def missing_pages(mapping: int) -> int: ...
def forget_mapping(mapping: int) -> None: ...
def mlx_encode(
    data: NDArray[np.uint8],
    type: int,
    bits: int,
    codes: NDArray[np.uint8],
    scales: NDArray[np.uint8],
    biases: NDArray[np.uint8],
    threads: int,
) -> None: ...

class Matrix:
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...

class Experts:
    def __init__(
        self,
        gate: NDArray[np.uint8],
        gate_type: int,
        up: NDArray[np.uint8],
        up_type: int,
        down: NDArray[np.uint8],
        down_type: int,
        activation: str = "silu",
        gate_bias: NDArray[np.float32] | None = None,
        up_bias: NDArray[np.float32] | None = None,
        down_bias: NDArray[np.float32] | None = None,
        gate_scale: NDArray[np.float32] | None = None,
        up_scale: NDArray[np.float32] | None = None,
        limit: float = 0.0,
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
    def matrix(self, data: NDArray[np.uint8], type: int, scale: float = 1.0) -> Matrix: ...
    def mapped_matrix(self, data: NDArray[np.uint8], type: int) -> Matrix: ...
    def linear(
        self,
        x: NDArray[np.float32],
        weights: list[Matrix],
        outs: list[NDArray[np.float32]],
        biases: list[NDArray[np.float32] | None],
    ) -> None: ...
    def heads_linear(
        self, x: NDArray[np.float32], weights: list[Matrix], out: NDArray[np.float32]
    ) -> None: ...
    def moe_ffn(
        self,
        x: NDArray[np.float32],
        experts: Experts,
        ids: NDArray[np.int32],
        weights: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def run_experts(
        self,
        x: NDArray[np.float32],
        experts: Experts,
        ids: NDArray[np.int32],
        batch: list[int],
        outputs: NDArray[np.float32],
    ) -> None: ...
    def sum_slots(
        self,
        outputs: NDArray[np.float32],
        weights: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def attention(
        self,
        q: NDArray[np.float32],
        k: NDArray[np.float32],
        v: NDArray[np.float32] | None,
        kv_pass: KVPass,
        place: KVPlace,
        scale: float,
        window: int,
        sinks: NDArray[np.float32] | None,
        out: NDArray[np.float32],
        seen: NDArray[np.uint8] | None = None,
        cap: float = 0.0,
    ) -> None: ...
    def embed(self, table: Matrix, tokens: NDArray[np.int32], out: NDArray[np.float32]) -> None: ...
    def rms_norm(
        self,
        x: NDArray[np.float32],
        weight: NDArray[np.float32],
        eps: float,
        out: NDArray[np.float32],
    ) -> None: ...
    def rope(
        self,
        x: NDArray[np.float32],
        cos: NDArray[np.float32],
        sin: NDArray[np.float32],
        interleaved: bool,
        out: NDArray[np.float32],
    ) -> None: ...
    def add(
        self, a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32]
    ) -> None: ...
    def glu(
        self,
        gate: NDArray[np.float32],
        up: NDArray[np.float32],
        activation: str,
        out: NDArray[np.float32],
        limit: float = 0.0,
    ) -> None: ...
    def route(
        self,
        logits: NDArray[np.float32],
        normalise: bool,
        gating: str,
        scale: float,
        groups: int,
        groups_used: int,
        bias: NDArray[np.float32] | None,
        ids: NDArray[np.int32],
        weights: NDArray[np.float32],
    ) -> None: ...
    def causal_conv(
        self,
        x: NDArray[np.float32],
        kernel: NDArray[np.float32],
        past: NDArray[np.float32],
        silu: bool,
        out: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
    ) -> None: ...
    def delta_net(
        self,
        qkv: NDArray[np.float32],
        write: NDArray[np.float32],
        forget: NDArray[np.float32],
        rates: NDArray[np.float32],
        time_bias: NDArray[np.float32],
        key_heads: NDArray[np.int32],
        num_key_heads: int,
        eps: float,
        state: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def kimi_delta(
        self,
        qkv: NDArray[np.float32],
        write: NDArray[np.float32],
        decay: NDArray[np.float32],
        eps: float,
        state: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def mamba(
        self,
        x: NDArray[np.float32],
        steps: NDArray[np.float32],
        b: NDArray[np.float32],
        c: NDArray[np.float32],
        rates: NDArray[np.float32],
        time_bias: NDArray[np.float32],
        skips: NDArray[np.float32],
        state: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def mamba2(
        self,
        xbc: NDArray[np.float32],
        steps: NDArray[np.float32],
        rates: NDArray[np.float32],
        time_bias: NDArray[np.float32],
        skips: NDArray[np.float32],
        groups: int,
        state: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None: ...
    def read_bandwidth(self, bytes: int, repeats: int = 5) -> float: ...

class Reader:
    """Background reads; see ``moestream.experts.reads``, which is all that uses it."""

    def __init__(
        self, ranges: NDArray[np.int64], threads: int, piece_bytes: int, mapped: bool
    ) -> None: ...
    @property
    def states(self) -> NDArray[np.uint8]: ...
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
