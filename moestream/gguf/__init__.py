"""GGUF files as the rest of moestream sees them: metadata, and tensors that are mapped, not copied.

Owns finding the shards of a split file, their agreement, and the mappings. Knows nothing of what
a key or a tensor means to a model, nor of the maths of a block: ``models`` and ``quants`` do.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from moestream.errors import ModelFormatError, ModelNotFoundError
from moestream.gguf.guard import MappingGuard
from moestream.gguf.header import Header, TensorInfo, read_header
from moestream.gguf.reader import MetadataValue
from moestream.quants import row_bytes

__all__ = ["GGUFFile", "MetadataValue", "Tensor", "TensorInfo"]

_T = TypeVar("_T", int, float, str, bool, list[Any])
_D = TypeVar("_D")
_MISSING: Any = object()
_SHARD_NAME = re.compile(r"(?s:(?P<stem>.*))-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A mapped tensor: ``data`` is a read-only view of its bytes, (*shape[:-1], row_bytes)."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


class GGUFFile:
    """A GGUF model file, split or whole: read-only metadata and mapped tensors.

    The views that ``tensor`` hands out stay valid after ``close``; a mapping goes when its last
    view does.
    """

    def __init__(self, path: Path, shards: "list[_Shard]") -> None:
        """Not for callers: use ``GGUFFile.open``."""
        self.path = path
        self.shards = tuple(shard.path for shard in shards)
        self.version = shards[0].header.version
        self.n_bytes = sum(len(shard.data) for shard in shards)
        self.metadata: Mapping[str, MetadataValue] = MappingProxyType(shards[0].header.metadata)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_merge_directories(shards))
        self.statuses = tuple(shard.status for shard in shards)
        """Of each shard's file when it was mapped: whether it is still the same."""
        self._maps = [shard.data for shard in shards]
        self._guards = [MappingGuard(data) for data in self._maps]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a GGUF file, or a split model by any one of its shards.

        Raises:
            ModelNotFoundError: nothing readable is there.
            ModelFormatError: it is not a sound GGUF file, or not all its shards are.
            UnsupportedQuantError: a tensor has a type number that is unknown here.
        """
        path = Path(path)
        opened = _Shard.open(path)
        return cls(path, [opened] if opened.count <= 1 else _open_all(opened))

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

    def tensor(self, name: str) -> Tensor:
        """Map the tensor ``name``: a view, no copy.

        Raises:
            ModelFormatError: the model has no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ModelFormatError(
                f"{self.path}: tensor {name!r} is missing; there are {len(self.tensors)} others"
            )
        if not self._maps:
            raise ValueError(f"{self.path} is closed")
        data = np.frombuffer(self._maps[info.shard], np.uint8, info.n_bytes, info.offset)
        shape = (*info.shape[:-1], row_bytes(info.type, info.shape[-1]))
        return Tensor(name, info.type, info.shape, data.reshape(shape))

    def forget_pages(self) -> None:
        """Count the pages touched so far as this process's no more; they come back when touched."""
        for data in self._maps:
            data.madvise(MADV_DONTNEED)

    def check_intact(self) -> None:
        """Make sure that all that was read of the mappings was there.

        Raises:
            ModelFormatError: a file was cut short meanwhile; what was read then is zeros.
        """
        for path, guard in zip(self.shards, self._guards, strict=True):
            if guard.missing_pages:
                raise ModelFormatError(
                    f"{path}: was cut short while it was read; leave a model's file alone while "
                    "it runs, and open it again"
                )

    def close(self) -> None:
        """Let go of the mappings; views that are still held keep theirs."""
        self._maps = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Shard:
    path: Path
    data: mmap
    status: os.stat_result
    header: Header

    @classmethod
    def open(cls, path: Path) -> "_Shard":
        data, status = _map(path)
        return cls(path, data, status, read_header(data, path))

    @property
    def number(self) -> int:
        """Counted from 1, as in file names; the metadata counts from 0."""
        return self._count("split.no", 0) + 1

    @property
    def count(self) -> int:
        return self._count("split.count", 1)

    @property
    def promised_tensors(self) -> int:
        return self._count("split.tensors.count", len(self.header.tensors))

    def _count(self, key: str, default: int) -> int:
        value = self.header.metadata.get(key, default)
        if type(value) is not int or value < 0:
            raise ModelFormatError(
                f"{self.path}: metadata key {key!r} is {value!r:.40}; a count was expected"
            )
        return value


def _map(path: Path) -> tuple[mmap, os.stat_result]:
    """Map a whole file, read-only."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            kind = "a directory" if S_ISDIR(status.st_mode) else "not a regular file"
            raise ModelFormatError(f"{path}: {kind}; a GGUF file was expected")
        if status.st_size == 0:
            raise ModelFormatError(f"{path}: the file is empty; a GGUF file was expected")
        with path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ), os.fstat(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: the path has a null byte
        reason = getattr(error, "strerror", None) or error
        raise ModelNotFoundError(f"{path}: cannot be opened: {reason}") from None


def _open_all(opened: _Shard) -> list[_Shard]:
    """Open the siblings of any one shard, found by its name."""
    number, count = opened.number, opened.count
    match = _SHARD_NAME.fullmatch(opened.path.name)
    if match is None or (int(match["number"]), int(match["count"])) != (number, count):
        raise ModelFormatError(
            f"{opened.path}: by its metadata this is shard {number} of {count}, but its name does "
            f"not end in -{number:05d}-of-{count:05d}.gguf; give it the name it was made with"
        )
    paths = [
        opened.path.with_name(f"{match['stem']}-{no:05d}-of-{count:05d}.gguf")
        for no in range(1, count + 1)
    ]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise ModelFormatError(
            f"{missing[0]}: this shard is missing, {len(missing)} of {count} are; "
            "put all of them into one folder"
        )
    return [opened if path == opened.path else _Shard.open(path) for path in paths]


def _merge_directories(shards: list[_Shard]) -> dict[str, TensorInfo]:
    """Join the shards' directories; the shards must be the parts of one split."""
    tensors: dict[str, TensorInfo] = {}
    for index, shard in enumerate(shards):
        if len(shards) > 1 and (shard.number, shard.count) != (index + 1, len(shards)):
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
