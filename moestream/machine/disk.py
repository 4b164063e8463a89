"""How fast a folder's disk reads, past the page cache: a short measurement.

Reads as experts are read: pieces of a mebibyte from random places, several at once. Knows nothing
of models, but that a large file may lie in the folder already.
"""

import fcntl
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moestream.errors import StorageError
from moestream.folders import has_suffix

PIECE_BYTES = 1 << 20
THREADS = 4
_SAMPLE_BYTES = 128 << 20
_F_NOCACHE = 48  # macOS has no O_DIRECT


def read_bandwidth(folder: Path, *, seconds: float = 0.5) -> float:
    """Return the bytes a second that reads of files in ``folder`` reach.

    Takes about ``seconds``, and where no large model is there first writes a file of 128 MiB, which
    it deletes.

    Raises:
        StorageError: the file system cannot be read past the page cache.
        OSError: the folder cannot be written or read.
    """
    with _sample(folder) as descriptor:
        return _measure(descriptor, os.fstat(descriptor).st_size // PIECE_BYTES, seconds)


@contextmanager
def _sample(folder: Path) -> Iterator[int]:
    """A large file to read: a model, or one that has no name, so that none is ever left."""
    models = [path for path in folder.rglob("*") if has_suffix(path.name, ".gguf")]
    large = [path for path in models if path.is_file() and path.stat().st_size >= _SAMPLE_BYTES]
    if large:
        with _opened(max(large, key=lambda path: path.stat().st_size)) as descriptor:
            yield descriptor
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, delete=False))
        try:
            descriptor = stack.enter_context(_opened(Path(file.name)))
        finally:
            Path(file.name).unlink()
        piece = os.urandom(PIECE_BYTES)  # a disk that compresses must not find it easy
        for number in range(_SAMPLE_BYTES // PIECE_BYTES):
            file.write(number.to_bytes(8, "little") + piece[8:])
        file.flush()
        os.fsync(file.fileno())
        yield descriptor


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read past the page cache ({error.strerror}); put models on a disk "
            "of this machine"
        ) from None
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, _F_NOCACHE, 1)
        yield descriptor
    finally:
        os.close(descriptor)


def _measure(descriptor: int, pieces: int, seconds: float) -> float:
    total, failures, lock = 0, list[OSError](), threading.Lock()
    started = time.perf_counter()

    def work(seed: int) -> None:
        nonlocal total
        choices = random.Random(seed)
        with mmap.mmap(-1, PIECE_BYTES) as buffer:  # page-aligned, as direct reads must be
            try:
                while True:  # once at least, however busy the machine is
                    offset = choices.randrange(pieces) * PIECE_BYTES
                    n_bytes = os.preadv(descriptor, [buffer], offset)
                    with lock:
                        total += n_bytes
                    if time.perf_counter() - started >= seconds:
                        break
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise StorageError(
            f"reading past the page cache failed: {failures[0].strerror}; put models on a disk of "
            "this machine"
        )
    return total / (time.perf_counter() - started)
