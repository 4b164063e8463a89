"""Arithmetic on activations and GGUF blocks; see ``base`` for what a backend is."""

from collections.abc import Callable

from moestream.backends.base import (
    Activation,
    Array,
    Backend,
    DeltaRule,
    ExpertBiases,
    Experts,
    ExpertTensors,
    Gating,
    Matrix,
    RopeStyle,
    Routing,
    StreamedExperts,
)
from moestream.backends.kv_rows import KVType, kv_row_bytes
from moestream.backends.reference import ReferenceBackend
from moestream.errors import UnsupportedModelError

__all__ = [
    "BACKENDS",
    "Activation",
    "Array",
    "Backend",
    "DeltaRule",
    "ExpertBiases",
    "ExpertTensors",
    "Experts",
    "Gating",
    "KVType",
    "Matrix",
    "RopeStyle",
    "Routing",
    "StreamedExperts",
    "kv_row_bytes",
    "open_backend",
]


def _open_cpu(threads: int | None) -> Backend:
    # Imported when asked for, so that a checkout that was never compiled still has the reference.
    from moestream.backends.cpu import CpuBackend

    return CpuBackend(threads)


def _open_reference(threads: int | None) -> Backend:
    if threads is not None:
        raise UnsupportedModelError(
            f"the reference backend leaves threads to NumPy, so {threads} of them cannot be asked "
            "for; set OMP_NUM_THREADS instead"
        )
    return ReferenceBackend()


BACKENDS: dict[str, Callable[[int | None], Backend]] = {
    "cpu": _open_cpu,
    "reference": _open_reference,
}
"""Names to functions that open the backend with that many threads, None for its own choice."""


def open_backend(name: str, *, threads: int | None = None) -> Backend:
    """Make the backend called ``name``; ``auto`` is the fastest that runs here.

    Raises:
        UnsupportedModelError: no backend of that name, or it cannot run so.
    """
    if name == "auto":
        name = "cpu"
    if name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise UnsupportedModelError(f"no backend is called {name!r}; there are: {known}")
    return BACKENDS[name](threads)
