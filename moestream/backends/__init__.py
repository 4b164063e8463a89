"""Arithmetic on activations and GGUF blocks; see ``base`` for what a backend is."""

from moestream.backends.base import Array, Backend, ExpertTensors, Matrix, RopeStyle
from moestream.backends.reference import ReferenceBackend
from moestream.errors import UnsupportedModelError

BACKENDS: dict[str, type[Backend]] = {"reference": ReferenceBackend}

__all__ = ["BACKENDS", "Array", "Backend", "ExpertTensors", "Matrix", "RopeStyle", "open_backend"]


def open_backend(name: str) -> Backend:
    """Make the backend called ``name``; ``auto`` is the fastest that runs here.

    Raises:
        UnsupportedModelError: no backend of that name.
    """
    if name == "auto":
        name = "reference"
    if name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise UnsupportedModelError(f"no backend is called {name!r}; there are: {known}")
    return BACKENDS[name]()
