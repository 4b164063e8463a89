"""Where things are kept on this machine, how names are compared, how a file comes to be whole.

Owns the folders, the rule of names and the steps of safe writing and reading of text. Knows nothing
of what is in the files.
"""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import platformdirs

_MOST_TEXT_BYTES = 256 << 20


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


def find_name(wanted: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that is meant: the same, or else the only one but for its case.

    This is how names of models and files are compared everywhere: a hub and some disks keep
    ``X.GGUF`` and ``x.gguf`` apart, people and other disks do not.
    """
    alike = [name for name in names if name.casefold() == wanted.casefold()]
    return wanted if wanted in alike else alike[0] if len(alike) == 1 else None


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a name ends so, in whatever case."""
    return name.casefold().endswith(suffix)


def link_told(path: Path) -> str | None:
    """Say where a link leads whose file is gone; None for what is no such link."""
    if not path.is_symlink() or path.exists():
        return None
    return (
        f"{path} is a link to {path.readlink()}, which is not there (deleted, or pruned from a "
        "cache); fetch the file again, or remove the link"
    )


def read_bytes(file: Path | BinaryIO) -> bytes:
    """Read a file of text whole, or what a pipe gives; a device may never end.

    Raises:
        OSError: it cannot be read, or holds more than any text does.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return read_bytes(opened)
    data = file.read(_MOST_TEXT_BYTES + 1)
    if len(data) > _MOST_TEXT_BYTES:
        told = f"holds more than {_MOST_TEXT_BYTES >> 20} MiB; expected a text"
        raise OSError(errno.EFBIG, told, str(file.name))
    return data


def read_text(path: Path) -> str:
    """Read a text file, with or without the mark that some editors put at its beginning.

    Raises:
        OSError: it cannot be read, or holds more than any text does.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8-sig")


def beginning(path: Path) -> bytes:
    """Read what a file begins with: nothing of what is not there, or is no file but a device."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(4096)


def require_writable(path: Path) -> None:
    """Find out whether a file can be written there later, before the work that it is to hold.

    Raises:
        OSError: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Folders that are not there yet are made when there is something to keep in them.
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None


def require_openable(path: Path) -> None:
    """Find out whether a file can be written as it goes: its folder must be there by now.

    Raises:
        OSError: it cannot.
    """
    if path.is_dir():
        code = errno.EISDIR
    elif not path.parent.is_dir():
        code = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
    elif not os.access(path if os.path.exists(path) else path.parent, os.W_OK):  # noqa: PTH110
        code = errno.EACCES
    else:
        return
    raise OSError(code, os.strerror(code), str(path))


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of that file; the system drops it when a process dies.

    ``on_wait`` is called once if another process holds it, before waiting for it. Who holds it may
    delete the file: who waits then takes the lock of the one that is there instead.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_there(path, file):
                yield
                return


def try_lock(path: Path) -> TextIO | None:
    """Take the lock of a file until it is closed; None where another process holds it.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks: nobody is known to hold it
            return file
        if _is_there(path, file):
            return file
        file.close()


def _is_there(path: Path, file: TextIO) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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
    for leftover in temporary_files(path):
        if not is_alive(leftover):
            leftover.unlink(missing_ok=True)
    try:
        with temporary.open("w", encoding="utf-8", errors=errors) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some file systems have no folders that can be synced
        sync(path.parent)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for the moment; what killed processes left of theirs goes too."""
    for leftover in parent.glob(".scratch.*.tmp"):
        if not is_alive(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = parent / f".scratch.{os.getpid()}.tmp"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_files(path: Path) -> list[Path]:
    """What ``replacing`` has begun of a file: its own while it writes, or those of killed runs."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    with suppress(OSError):
        return [other for other in path.parent.iterdir() if name.fullmatch(other.name)]
    return []


def is_alive(temporary: Path) -> bool:
    """Whether the process is there that is writing a temporary file of this name."""
    try:
        os.kill(int(temporary.name.split(".")[-2]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's: alive, as far as we may know
        return True
    return True
