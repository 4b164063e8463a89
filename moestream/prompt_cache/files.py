"""Files of stored blocks: written whole, checked when they are read, the least useful removed.

Owns their folder and its size. Knows nothing of what is in a block.
"""

import os
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestream.backends import BLOCK_POSITIONS
from moestream.folders import cache_dir, is_alive

Bytes = NDArray[np.uint8]

_HEADER = struct.Struct("<8sIIQ40x")  # magic, version, checksum, bytes
_MAGIC, _VERSION = b"moeKV\r\n\0", 1
_SUFFIX = ".kv"
STATE = "-state"
"""After a block's name: what recurrent layers remember at its end."""
_LOOKS = 32
"""Looks at all files while as much is written as there may be."""
_PRUNED = 0.9
"""To this part of the limit, so that not every block that is written looks at all."""


def folder_of_all() -> Path:
    """The folder of all models' blocks."""
    return cache_dir() / "prompts"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one model."""

    model: str
    title: str
    n_tokens: int
    n_bytes: int
    used_s: float
    """When any of it was last used, as files' times are."""


class BlockFiles:
    """The blocks of one model, in a folder that only its owner can read."""

    def __init__(self, model: str, title: str, limit_bytes: int) -> None:
        """``title`` is what the model is called, for people; the limit is of all models' blocks.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder = folder_of_all() / model
        self._title, self._limit_bytes = title, limit_bytes
        self._make_folder()
        for leftover in self.folder.glob(".*.tmp"):
            if not is_alive(leftover):
                leftover.unlink(missing_ok=True)
        self._total_bytes = self._since_look = 0

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (folder_of_all(), self.folder):
            folder.chmod(0o700)
        _write(self.folder / "model.txt", [np.frombuffer(self._title.encode(), np.uint8)])

    def has(self, name: str) -> bool:
        """Whether there is a block of this name."""
        return (self.folder / (name + _SUFFIX)).exists()

    def put(self, name: str, data: Bytes) -> None:
        """Write a block, unless it is there.

        Raises:
            OSError: it cannot be written; nothing of it is left.
        """
        if self.has(name):
            return
        header = _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(data.data), len(data))
        parts = [np.frombuffer(header, np.uint8), data]
        try:
            _write(self.folder / (name + _SUFFIX), parts)
        except FileNotFoundError:  # all of it was removed, by a command or another process
            self._make_folder()
            _write(self.folder / (name + _SUFFIX), parts)
        self._limit(len(header) + len(data))

    def _limit(self, written: int) -> None:
        """Keep all models' files within the limit; others may write too."""
        self._since_look += written
        self._total_bytes += written
        if self._since_look >= self._limit_bytes // _LOOKS or not self._total_bytes - written:
            self._since_look = 0
            self._total_bytes = sum(size for _, size, _ in _all_files())
        if self._total_bytes > self._limit_bytes:
            self._total_bytes = prune(int(self._limit_bytes * _PRUNED))

    def read_into(self, name: str, data: Bytes) -> bool:
        """Read a block; False, and ``data`` is worth nothing, where it is not there or not right.

        One that is damaged is removed.
        """
        path = self.folder / (name + _SUFFIX)
        try:
            with path.open("rb", buffering=0) as file:
                header = file.read(_HEADER.size)
                whole = file.readinto(data) == len(data) and not file.read(1)  # type: ignore[arg-type]
        except OSError:
            return False
        expected = _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(data.data), len(data))
        if whole and header == expected:
            return True
        with suppress(OSError):
            path.unlink()
        return False

    def touch(self, names: Sequence[str]) -> None:
        """Note that a chain of blocks was used: a block that others build on goes after them."""
        now = time.time()
        for back, name in enumerate(reversed(names)):
            for stem in (name, name + STATE):
                with suppress(OSError):
                    os.utime(self.folder / (stem + _SUFFIX), (now, now + back * 1e-3))


def stored_models() -> list[Stored]:
    """What is stored, of all models, the last used first."""
    found: dict[Path, list[tuple[Path, int, float]]] = {}
    for each in _all_files():
        found.setdefault(each[0].parent, []).append(each)
    models = [
        Stored(
            folder.name,
            _title(folder),
            BLOCK_POSITIONS * sum(not path.stem.endswith(STATE) for path, _, _ in files),
            sum(size for _, size, _ in files),
            max(used for _, _, used in files),
        )
        for folder, files in found.items()
    ]
    return sorted(models, key=lambda stored: -stored.used_s)


def remove(model: str) -> int:
    """Remove all that is stored of a model; return how many bytes that frees."""
    folder, freed = folder_of_all() / model, 0
    for path in _files_of(folder):
        with suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    with suppress(OSError):  # another process writes into it again
        folder.rmdir()
    return freed


def prune(limit_bytes: int) -> int:
    """Remove what was not used for longest, until all is within the limit; return what is left."""
    files = sorted(_all_files(), key=lambda found: found[2])
    left = sum(size for _, size, _ in files)
    for path, size, _ in files:
        if left <= limit_bytes:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
            left -= size
    for folder in {path.parent for path, _, _ in files}:
        if not any(folder.glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                (folder / "model.txt").unlink(missing_ok=True)
                folder.rmdir()
    return left


def _all_files() -> list[tuple[Path, int, float]]:
    """Blocks of all models: path, bytes, and when it was used last."""
    found = []
    for folder in filter(Path.is_dir, _files_of(folder_of_all())):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with suppress(OSError):
                        status = entry.stat()
                        found.append((Path(entry.path), status.st_size, status.st_mtime))
    return found


def _files_of(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _title(folder: Path) -> str:
    try:
        return (folder / "model.txt").read_text(errors="replace")
    except OSError:
        return folder.name


def _write(path: Path, parts: Sequence[Bytes]) -> None:
    """Write a file under a temporary name, for its owner alone, and put it in its place.

    Not synced, as files are that a person keeps: one that a crash cut short is found out.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            for part in parts:
                view = part.data
                while len(view):
                    view = view[file.write(view) :]
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
