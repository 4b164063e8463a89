"""What a GGUF model says of itself: the headers of all its files, put together.

Owns the agreement of shards, and metadata of a type that is asked for. Knows nothing of mappings,
nor of where a header came from: a file here, or a server.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

from moestream.closing import Closing
from moestream.errors import ModelFormatError
from moestream.gguf.header import Header, TensorInfo
from moestream.gguf.parser import MetadataValue

_T = TypeVar("_T", int, float, str, bool, list[Any])
_D = TypeVar("_D")
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a model: its name, its bytes in all, and its header."""

    path: Path
    n_bytes: int
    header: Header

    @property
    def number(self) -> int:
        """Counted from 1, as in file names; the metadata counts from 0."""
        return self._count("split.no", 0) + 1

    @property
    def count(self) -> int:
        """How many there are in all."""
        return self._count("split.count", 1)

    @property
    def promised_tensors(self) -> int:
        """How many tensors all shards have, as this one says."""
        return self._count("split.tensors.count", len(self.header.tensors))

    def _count(self, key: str, default: int) -> int:
        value = self.header.metadata.get(key, default)
        if type(value) is not int or value < 0:
            raise ModelFormatError(
                f"{self.path}: metadata key {key!r} is {value!r:.40}; a count was expected"
            )
        return value


class GGUFHeader(Closing):
    """Metadata and tensor directory of a GGUF model, split or whole, without its tensors' bytes.

    A context manager like ``GGUFFile``, though there is nothing to close.
    """

    def __init__(self, path: Path, shards: Sequence[Shard]) -> None:
        """Put the headers of all files of a model together, in order; ``path`` is for messages.

        Raises:
            ModelFormatError: they are not the parts of one model.
        """
        self.path = path
        self.shards = tuple(shard.path for shard in shards)
        self.version = shards[0].header.version
        self.n_bytes = sum(shard.n_bytes for shard in shards)
        self.metadata: Mapping[str, MetadataValue] = MappingProxyType(shards[0].header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_merge_directories(shards))

    @overload
    def get(self, key: str, kind: type[_T]) -> _T: ...
    @overload
    def get(self, key: str, kind: type[_T], default: _D) -> _T | _D: ...
    def get(self, key: str, kind: type[Any], default: Any = _MISSING) -> Any:
        """Look up metadata that must be of exactly the Python type ``kind``: an int is no float.

        Raises:
            ModelFormatError: it has another type, or is missing and there is no ``default``.
        """
        value = self.metadata.get(key, _MISSING)
        if value is _MISSING and default is not _MISSING:
            return default
        if type(value) is not kind:
            found = "missing" if value is _MISSING else f"of type {type(value).__name__}"
            raise ModelFormatError(
                f"{self.shards[0]}: metadata key {key!r} is {found}; "
                f"type {kind.__name__} was expected"
            )
        return value

    def tensor_info(self, name: str) -> TensorInfo:
        """Say where the tensor ``name`` lies, and what it is.

        Raises:
            ModelFormatError: the model has no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ModelFormatError(
                f"{self.path}: tensor {name!r} is missing; there are {len(self.tensors)} others"
            )
        return info

    def restrict(self, names: Container[str]) -> None:
        """From now on have these tensors alone: what a model does not use is not counted."""
        kept = {name: info for name, info in self.tensors.items() if name in names}
        self.tensors = MappingProxyType(kept)

    def close(self) -> None:
        """Nothing is held open."""


def _merge_directories(shards: Sequence[Shard]) -> dict[str, TensorInfo]:
    """Join the shards' directories; the shards must be the parts of one split."""
    tensors: dict[str, TensorInfo] = {}
    for index, shard in enumerate(shards):
        split = len(shards) > 1 or shard.count > 1
        if split and (shard.number, shard.count) != (index + 1, len(shards)):
            raise ModelFormatError(
                f"{shard.path}: by its metadata this is shard {shard.number} of {shard.count}, "
                f"by its name {index + 1} of {len(shards)}; the shards are not of one model"
            )
        for tensor in shard.header.tensors:
            if tensor.name in tensors:
                other = shards[tensors[tensor.name].shard].path
                raise ModelFormatError(
                    f"{shard.path}: tensor {tensor.name!r} is also in {other}; "
                    "the shards are not of one model"
                )
            tensors[tensor.name] = replace(tensor, shard=index)
    promised = shards[0].promised_tensors
    if len(shards) > 1 and len(tensors) != promised:
        raise ModelFormatError(
            f"{shards[0].path}: {promised} tensors are promised in its metadata, but its "
            f"{len(shards)} shards have {len(tensors)}; they are not of one model"
        )
    return tensors
