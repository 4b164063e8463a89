"""Whether a file is a whole model, found out without its weights: it is built of their outlines.

The same code that builds a model asks here for the same tensors in the same shapes, so what passes
is what will load, and what it asked for is what the model uses.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends import ExpertTensors, StreamedExperts
from moestream.errors import UnsupportedModelError, UnsupportedQuantError
from moestream.gguf import GGUFHeader, Tensor
from moestream.layers.token_experts import TOKEN_EXPERTS
from moestream.quants import GGMLQuantizationType, block_layout, dequantize, multiplies

_EXPERTS = ("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")


class Outlines(GGUFHeader):
    """Stands for a model's file: it knows the shapes of tensors, and gives them without bytes."""

    def __init__(self, file: GGUFHeader) -> None:
        self.path, self.shards = file.path, file.shards
        self.metadata, self.tensors = file.metadata, file.tensors
        self.used: set[str] = set()
        """Names of the tensors that were asked for."""
        self._readable: set[GGMLQuantizationType] = set()

    def tensor(self, name: str) -> Tensor:
        """The tensor, its rows of no bytes.

        Raises:
            ModelFormatError: the model has no such tensor.
            UnsupportedModelError: the model is of a layout that is no longer read.
            UnsupportedQuantError: nothing here reads its type, or none multiplies with it.
        """
        self._require_layout(name)
        info = self.tensor_info(name)
        if info.type not in self._readable:
            self._require_readable(name, info.type)
        table = name.endswith(TOKEN_EXPERTS)
        if len(info.shape) > 1 and not multiplies(info.type) and not table:
            raise UnsupportedQuantError(
                f"{self.path}: tensor {name!r} is a matrix of {info.type.name}, a type that only "
                "vectors may have; fetch the model in another quantisation"
            )
        self.used.add(name)
        return Tensor(name, info.type, info.shape, np.empty((*info.shape[:-1], 0), np.uint8))

    def _require_layout(self, name: str) -> None:
        old = f"{name.partition('_exps')[0]}.0.weight"
        if name not in self.tensors and name.endswith(_EXPERTS) and old in self.tensors:
            raise UnsupportedModelError(
                f"{self.path}: has each expert in a tensor of its own ({old}), an old layout; "
                "convert the model again, or fetch a newer file of it"
            )

    def _require_readable(self, name: str, type: GGMLQuantizationType) -> None:
        try:
            dequantize(np.zeros((1, block_layout(type)[1]), np.uint8), type)
        except UnsupportedQuantError as error:
            raise UnsupportedQuantError(
                f"{self.path}: tensor {name!r}: {error}; fetch the model in another quantisation"
            ) from None
        self._readable.add(type)


class Outliner:
    """Stands for a backend while a model is built of outlines: it makes nothing of them."""

    name = "outline"

    def matrix(self, tensor: Tensor) -> Tensor:
        """No weights."""
        return tensor

    embedding = matrix

    def head_matrices(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """No weights."""
        return list(tensors)

    def vector(self, tensor: Tensor) -> NDArray[np.float32]:
        """Ones that take no memory."""
        return np.broadcast_to(np.float32(1), tensor.shape)

    def stack_rows(self, parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """As many rows, which take no memory."""
        rows = sum(len(part) for part in parts)
        return np.broadcast_to(np.float32(1), (rows, *parts[0].shape[1:]))

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> ExpertTensors | StreamedExperts:
        """No weights."""
        return tensors

    def zeros(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Zeros that take no memory."""
        return np.broadcast_to(np.float32(0), shape)

    def to_numpy(self, x: Any) -> Any:
        """They are NumPy's."""
        return x
