"""What each rank says of itself before anything is loaded, and whether they fit together.

Owns what must be the same on all of them. Which layers follow from it is ``division``'s.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from moestream import __version__
from moestream.backends import default_backend
from moestream.engine.engine import context_of
from moestream.errors import RankError
from moestream.gguf import GGUFFile
from moestream.models import read_config
from moestream.ranks.options import Options
from moestream.streaming.memory import available_memory, budget_bytes, process_memory

_COPIED_BYTES = 32 << 20
_COPIES = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """One rank's version, file and machine."""

    name: str
    version: str
    architecture: str
    file: str
    n_bytes: int
    header_sha256: str
    backend: str
    """Which it is, where one was to be chosen."""
    context: int
    memory_bytes: int
    """For everything, by its budget."""
    speed: float
    """Bytes a second that its memory gives: what decoding goes by."""

    @classmethod
    def of(cls, name: str, file: GGUFFile, options: Options) -> "Hello":
        """Look at this machine and its copy of the model, which is opened with these options.

        Raises:
            ModelFormatError, BudgetError: see ``errors``.
        """
        memory, own = available_memory(), process_memory()
        backend, budget = options.get("backend", "auto"), options.get("budget")
        return cls(
            name,
            __version__,
            file.get("general.architecture", str),
            file.path.name,
            file.n_bytes,
            header_hash(file),
            default_backend() if backend == "auto" else backend,
            context_of(read_config(file), options.get("context_length")),
            memory.available_bytes if budget is None else budget_bytes(budget, memory, own),
            copy_speed(),
        )

    def to_dict(self) -> dict[str, Any]:
        """For a message."""
        return asdict(self)


def other_version(name: str, version: str, first: str, wanted: str) -> str:
    """What to do about a host that runs another moestream than the first."""
    return (
        f"{name} runs moestream {version}, and {first} {wanted}; install {wanted} there: "
        f"pip install moestream=={wanted}"
    )


def require_alike(hellos: Sequence[Hello]) -> None:
    """See that all have the same version, model and settings as the first.

    Raises:
        RankError: one has not; it says which, and what to do.
    """
    first = hellos[0]
    for other in hellos[1:]:
        if other.version != first.version:
            raise RankError(other_version(other.name, other.version, first.name, first.version))
        if (other.header_sha256, other.n_bytes) != (first.header_sha256, first.n_bytes):
            raise RankError(
                f"{other.name} has another file: {other.file} of {other.n_bytes:,} bytes there "
                f"({other.architecture}), {first.file} of {first.n_bytes:,} here "
                f"({first.architecture}); copy the file there, for instance with rsync"
            )
        if other.backend != first.backend:
            raise RankError(
                f"{other.name} computes with {other.backend}, and {first.name} with "
                f"{first.backend}, which round otherwise; give all the same --backend, for "
                "instance cpu"
            )
        if other.context != first.context:
            raise RankError(
                f"{other.name} has a context of {other.context:,}, and {first.name} of "
                f"{first.context:,}; give all the same -c"
            )


def header_hash(file: GGUFFile) -> str:
    """SHA-256 of all that comes before the tensors' bytes, in each file of a model."""
    found = hashlib.sha256()
    for shard, path in enumerate(file.shards):
        begins = (info.offset for info in file.tensors.values() if info.shard == shard)
        with path.open("rb") as data:
            found.update(data.read(min(begins, default=path.stat().st_size)))
    return found.hexdigest()


@cache
def copy_speed() -> float:
    """Bytes a second that are copied from memory to memory."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    target, times = np.empty_like(source), []
    for _ in range(_COPIES):
        started = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - started)
    return _COPIED_BYTES / min(times)
