"""Arithmetic on activations and GGUF blocks; see ``base`` for what a backend is."""

import importlib.util
import platform
import sys
from collections.abc import Callable

from moestream.backends.base import Backend
from moestream.backends.expert_tensors import (
    Arrivals,
    ExpertBiases,
    ExpertSlots,
    ExpertTensors,
    MakeSlots,
    StreamedExperts,
)
from moestream.backends.kv_rows import BLOCK_POSITIONS, AttentionShape, KVTypes, whole_blocks
from moestream.backends.recurrent_rules import Convolution, DeltaRule, Mamba2Rule, MambaRule
from moestream.backends.reference import ReferenceBackend
from moestream.backends.types import (
    Activation,
    Array,
    AttentionRule,
    Experts,
    Gates,
    Gating,
    IndexQueries,
    KVPass,
    KVStore,
    KVStores,
    Matrices,
    Matrix,
    RopeStyle,
    Routed,
    RouterGate,
    Routing,
    Seen,
    Work,
)
from moestream.errors import UnsupportedModelError

__all__ = [
    "BACKENDS",
    "BLOCK_POSITIONS",
    "Activation",
    "Array",
    "Arrivals",
    "AttentionRule",
    "AttentionShape",
    "Backend",
    "Convolution",
    "DeltaRule",
    "ExpertBiases",
    "ExpertSlots",
    "ExpertTensors",
    "Experts",
    "Gates",
    "Gating",
    "IndexQueries",
    "KVPass",
    "KVStore",
    "KVStores",
    "KVTypes",
    "MakeSlots",
    "Mamba2Rule",
    "MambaRule",
    "Matrices",
    "Matrix",
    "RopeStyle",
    "Routed",
    "RouterGate",
    "Routing",
    "Seen",
    "StreamedExperts",
    "Work",
    "default_backend",
    "open_backend",
    "whole_blocks",
]


def _open_cpu(threads: int | None) -> Backend:
    # Imported when asked for, so that a checkout that was never compiled still has the reference.
    from moestream.backends.cpu import CpuBackend

    return CpuBackend(threads)


def _refuse(threads: int | None, why: str, instead: str) -> None:
    if threads is not None:
        raise UnsupportedModelError(
            f"the {why}, so {threads} threads cannot be asked for; {instead}"
        )


def _open_reference(threads: int | None) -> Backend:
    why = "reference backend leaves threads to NumPy"
    _refuse(threads, why, "set OMP_NUM_THREADS instead")
    return ReferenceBackend()


def _open_mlx(threads: int | None) -> Backend:
    why = "mlx backend runs on the GPU"
    _refuse(threads, why, "leave them out, or choose the backend 'cpu'")
    from moestream.backends.mlx import MlxBackend

    return MlxBackend()


BACKENDS: dict[str, Callable[[int | None], Backend]] = {
    "cpu": _open_cpu,
    "mlx": _open_mlx,
    "reference": _open_reference,
}
"""Names to functions that open the backend with that many threads, None for its own choice."""


def default_backend() -> str:
    """What ``auto`` is here: MLX on Apple Silicon where it is installed, else native code."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return "mlx" if apple and importlib.util.find_spec("mlx") is not None else "cpu"


def open_backend(name: str, *, threads: int | None = None) -> Backend:
    """Make the backend called ``name``; ``auto`` is the fastest that runs here.

    Raises:
        UnsupportedModelError: no backend of that name, or it cannot run so.
    """
    if name == "auto":
        name = default_backend()
    if name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise UnsupportedModelError(f"no backend is called {name!r}; there are: {known}")
    return BACKENDS[name](threads)
