"""The log of a run, and what the library logs: Python's ``logging``, imported where it is used."""

import errno
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moestream.folders import beginning

logger = logging.getLogger("moestream")
Tell = Callable[[str], None]


class Listener(logging.Handler):
    """Tells what the library warns of; what is told by ``ui`` itself it need not."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a record of the library."""
        if record.name != logger.name:
            self._tell(record.getMessage())


class _LogFile(logging.FileHandler):
    """A log file; where it cannot be written, that is told once, and the run goes on."""

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._tell = tell

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        reason = getattr(sys.exception(), "strerror", None) or "it cannot be written"
        logger.removeHandler(self)
        with suppress(OSError):
            self.close()
        self._tell(f"{self.baseFilename}: {reason}; nothing more is written to this log")


def log_to_file(path: Path, tell: Tell) -> logging.Logger:
    """Write what is logged, with its time, to the end of a file; ``tell`` of its failure.

    Raises:
        OSError: the file cannot be written, or holds something else than text.
    """
    if b"\0" in beginning(path):
        raise FileExistsError(errno.EEXIST, "is no text: it is left as it is", str(path))
    handler = _LogFile(path, tell)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
