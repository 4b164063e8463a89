"""Rows of hidden states between a message and a backend."""

import numpy as np

from moestream.backends import Array, Backend
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType
from moestream.ranks.message import Rows


def array_of(backend: Backend, rows: Rows) -> Array:
    """As what the backend computes with, of the same bits."""
    data = np.ascontiguousarray(rows, np.float32)
    return backend.vector(Tensor("", GGMLQuantizationType.F32, data.shape, data.view(np.uint8)))
