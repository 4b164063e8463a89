"""Where things are kept on this machine, and how a file comes to be there whole.

Owns the folders and the steps of safe writing. Knows nothing of what is in the files.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import platformdirs


def cache_dir() -> Path:
    """The folder of everything that moestream downloads or builds (``MOESTREAM_CACHE``)."""
    return Path(os.environ.get("MOESTREAM_CACHE") or platformdirs.user_cache_dir("moestream"))


def models_dir() -> Path:
    """The folder of the models that moestream built; downloads are in ``hub`` below it."""
    return cache_dir() / "models"


def config_dir() -> Path:
    """The folder of the user's ``config.toml`` and ``models.toml`` (``MOESTREAM_CONFIG``)."""
    return Path(os.environ.get("MOESTREAM_CONFIG") or platformdirs.user_config_dir("moestream"))


def state_dir() -> Path:
    """The folder of what chats leave: lines entered, conversations (``MOESTREAM_STATE``)."""
    return Path(os.environ.get("MOESTREAM_STATE") or platformdirs.user_state_dir("moestream"))


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of that file; the system drops it when a process dies.

    ``on_wait`` is called once if another process holds it, before waiting for it.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, *, errors: str = "strict") -> Iterator[TextIO]:
    """Write a file that is there either as it was or as it shall be, never in part.

    What is written goes to a temporary name, is synced, and renamed when the block ends well.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors=errors) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some file systems have no folders that can be synced
        sync(path.parent)
