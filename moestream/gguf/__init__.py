"""GGUF files as the rest of moestream sees them: metadata, and tensors that are mapped, not copied.

Owns finding the shards of a split file, and the mappings; what they say of themselves is put
together in ``model``. Knows nothing of what a key or a tensor means to a model, nor of the maths of
a block: ``models`` and ``quants`` do.
"""

import os
import re
from dataclasses import dataclass
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moestream.errors import ModelFormatError, ModelNotFoundError, StorageError
from moestream.folders import find_name, link_told
from moestream.gguf.guard import MappingGuard
from moestream.gguf.header import TensorInfo, read_header
from moestream.gguf.mistaken import piece_told
from moestream.gguf.model import GGUFHeader, Shard
from moestream.gguf.parser import IncompleteHeader, MetadataValue
from moestream.quants import GGMLQuantizationType, row_bytes

__all__ = [
    "GGUFFile",
    "GGUFHeader",
    "IncompleteHeader",
    "MetadataValue",
    "Shard",
    "Tensor",
    "TensorInfo",
    "read_header",
]

_SHARD_NAME = re.compile(
    r"(?s:(?P<stem>.*))-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A mapped tensor: ``data`` is a read-only view of its bytes, (*shape[:-1], row_bytes).

    ``scale`` is what products with a matrix are multiplied by, which files of NVFP4 have besides.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    scale: float = 1.0


class GGUFFile(GGUFHeader):
    """A GGUF model file, split or whole: read-only metadata and mapped tensors.

    The views that ``tensor`` hands out stay valid after ``close``; a mapping goes when its last
    view does.
    """

    def __init__(self, path: Path, mapped: "list[_Mapped]") -> None:
        """Not for callers: use ``GGUFFile.open``."""
        super().__init__(path, [file.shard for file in mapped])
        self.statuses = tuple(file.status for file in mapped)
        """Of each shard's file when it was mapped: whether it is still the same."""
        self._maps = [file.data for file in mapped]
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
        opened = _Mapped.open(path)
        return cls(path, [opened] if opened.shard.count <= 1 else _open_all(opened))

    def tensor(self, name: str) -> Tensor:
        """Map the tensor ``name``: a view, no copy.

        Raises:
            ModelFormatError: the model has no such tensor.
        """
        info = self.tensor_info(name)
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
            StorageError: the disk could not read a part of it.
        """
        for path, guard, then in zip(self.shards, self._guards, self.statuses, strict=True):
            if guard.missing_pages and path.exists() and path.stat().st_size == then.st_size:
                raise StorageError(
                    f"{path}: could not be read in part: the disk reported an error; check the "
                    "disk, or fetch the file again to another"
                )
            if guard.missing_pages:
                raise ModelFormatError(
                    f"{path}: was cut short while it was read; leave a model's file alone while "
                    "it runs, and open it again"
                )

    def close(self) -> None:
        """Let go of the mappings; views that are still held keep theirs."""
        self._maps = []


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A mapped file, and what its header says."""

    shard: Shard
    data: mmap
    status: os.stat_result

    @classmethod
    def open(cls, path: Path) -> "_Mapped":
        data, status = _map(path)
        return cls(Shard(path, len(data), read_header(data, path)), data, status)


def _map(path: Path) -> tuple[mmap, os.stat_result]:
    """Map a whole file, read-only."""
    if (told := piece_told(path.name)) is not None:
        raise ModelFormatError(f"{path}: {told}")
    try:
        if (told := link_told(path)) is not None:
            raise ModelNotFoundError(told)
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


def _open_all(opened: _Mapped) -> list[_Mapped]:
    """Open the siblings of any one shard, found by its name."""
    given, number, count = opened.shard.path, opened.shard.number, opened.shard.count
    match = _SHARD_NAME.fullmatch(given.name)
    if match is None or (int(match["number"]), int(match["count"])) != (number, count):
        raise ModelFormatError(
            f"{given}: by its metadata this is shard {number} of {count}, but its name does "
            f"not end in -{number:05d}-of-{count:05d}.gguf; give it the name it was made with"
        )
    here = [path.name for path in given.parent.iterdir()]
    wanted = [f"{match['stem']}-{no:05d}-of-{count:05d}.gguf" for no in range(1, count + 1)]
    found = [
        given.name if no == number else find_name(name, here) for no, name in enumerate(wanted, 1)
    ]
    missing = [name for name, there in zip(wanted, found, strict=True) if there is None]
    if missing:
        raise ModelFormatError(
            f"{given.with_name(missing[0])}: this shard is missing, {len(missing)} of {count} are; "
            "put all of them into one folder"
        )
    return [
        opened if name == given.name else _Mapped.open(given.with_name(name))
        for name in filter(None, found)
    ]
