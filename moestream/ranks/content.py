"""Whether ranks have the same bytes of the tensors that each reads, beside the same header."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby

from moestream.errors import RankError
from moestream.gguf import GGUFFile, TensorInfo
from moestream.models import used_names
from moestream.models.part import names_of

Tell = Callable[[int, int], None]
"""Hears how many bytes have been read, of how many."""
_READ_BYTES = 4 << 20


def hash_parts(
    file: GGUFFile, context: int, parts: Sequence[range], tell: Tell = lambda done, total: None
) -> list[str]:
    """SHA-256 of all that each part of the layers reads, in the order of the file.

    Raises:
        OSError, RankError: the disk gives no more, or the file has no more.
    """
    used = used_names(file, context)
    found = [_tensors(file, names_of(part, used)) for part in parts]
    total, done, hashes = sum(info.n_bytes for part in found for info in part), 0, []
    for part in found:
        content = hashlib.sha256()
        for shard, tensors in groupby(part, lambda info: info.shard):
            with file.shards[shard].open("rb", buffering=0) as data:
                for info in tensors:
                    data.seek(info.offset)
                    left = info.n_bytes
                    while left:
                        piece = data.read(min(left, _READ_BYTES))
                        if not piece:
                            raise RankError(f"{file.shards[shard]} was cut short; copy it again")
                        content.update(piece)
                        left -= len(piece)
                        done += len(piece)
                        tell(done, total)
        hashes.append(content.hexdigest())
    return hashes


def _tensors(file: GGUFFile, names: set[str]) -> list[TensorInfo]:
    infos = (info for name, info in file.tensors.items() if name in names)
    return sorted(infos, key=lambda info: (info.shard, info.offset))


def require_same(here: Sequence[str], there: Sequence[str], names: Sequence[str]) -> None:
    """See that each rank has what the first has of its part.

    Raises:
        RankError: one has not; it says which.
    """
    for name, mine, its in zip(names, here, there, strict=True):
        if mine != its:
            raise RankError(
                f"{name} has other bytes in its copy of the file, under the same header; copy it "
                "there again, for instance with rsync --checksum"
            )
