"""Writes the routing of a run in the format that ``format`` reads.

Knows the columns, and how a file of a run's own comes to be; is told what was routed and what was
in memory.
"""

import fcntl
import gzip
import os
import zlib
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, TextIO, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moestream.closing import Closing
from moestream.errors import TraceError
from moestream.folders import beginning
from moestream.traces.format import COLUMNS, MAGIC, TraceHeader


class TraceWriter(Closing):
    """Writes a trace as a run goes, compressed when its name ends in ``.gz``. A context manager."""

    def __init__(self, path: str | os.PathLike[str], header: TraceHeader) -> None:
        self._sizes = header.expert_bytes
        shape = f"n_layer={header.num_layers} n_expert={header.num_experts}"
        used = f"n_expert_used={header.num_experts_per_tok}"
        lines = [MAGIC, f"# model={_word(header.model)} arch={_word(header.arch)} {shape} {used}"]
        lines += [f"# layer={layer} expert_bytes={n}" for layer, n in self._sizes.items()]
        self._file = RunFile(Path(path), "\n".join([*lines, ",".join(COLUMNS)]) + "\n")

    def record(
        self,
        turn: int,
        phase: int,
        step: int,
        layer: int,
        expert_ids: ArrayLike,
        weights: ArrayLike,
        resident: ArrayLike | None = None,
    ) -> None:
        """Write what one layer routed for consecutive tokens, the first at position ``step``.

        ``expert_ids``, ``weights`` and ``resident`` are (T, k), or (k,) for one token. Without
        ``resident`` every expert was in memory, as in a run that holds the whole model. One that
        several tokens miss is read once, and its bytes are written once.
        """
        ids: NDArray[np.int64] = np.atleast_2d(np.asarray(expert_ids, np.int64))
        rows = zip(
            ids.tolist(),
            np.atleast_2d(np.asarray(weights, np.float64)).tolist(),
            np.broadcast_to(True if resident is None else resident, ids.shape).tolist(),
            strict=True,
        )
        unread = dict.fromkeys(ids.ravel().tolist(), self._sizes[layer])
        self._file.writelines(
            f"{turn},{phase},{token},{layer},{slot},{expert},{weight:.6g},"
            f"{int(in_memory)},{0 if in_memory else unread.pop(expert, 0)}\n"
            for token, row in enumerate(rows, step)
            for slot, (expert, weight, in_memory) in enumerate(zip(*row, strict=True))
        )

    def begin(self) -> None:
        """Replace what lies there, though there may be nothing to record."""
        self._file.begin()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._file.close()


class RunFile(Closing):
    """A text file that a run writes, compressed when its name ends in ``.gz``. A context manager.

    It is opened at once, so that a place that cannot be written is known before there is anything
    to write. What lies there is replaced when the first line comes: a run that is refused leaves
    it as it was. No two runs write one file.
    """

    def __init__(self, path: Path, head: str) -> None:
        """Open the file for ``head`` and lines after it.

        Raises:
            TraceError: another run is writing it, or it holds something else.
            OSError: it cannot be written.
        """
        self._path, self._head = path, head
        kind = head.partition("\n")[0].encode()
        if (held := _unpacked(beginning(path))) and not held.startswith(kind):
            raise TraceError(
                f"{path}: exists and is not what would be written there: it is left as it is; give "
                "another file, or remove it first"
            )
        self._is_new = not os.path.lexists(path)
        self._raw = path.open("ab")
        self._text: TextIO | None = None
        try:
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._raw.close()
            raise TraceError(
                f"{path}: another run, or another option of this one, is writing it; give another "
                "file, or wait for its end"
            ) from None
        except OSError:  # a file system, or a device, without locks
            pass

    def write(self, text: str) -> None:
        """Write at the end."""
        self.writelines((text,))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write at the end, after the head where nothing was written yet."""
        self.begin().writelines(lines)

    def begin(self) -> TextIO:
        """Replace what lies there by the head, if that is not done yet: the run has begun."""
        if self._text is None:
            self._text = self._empty()
            self._text.write(self._head)
        return self._text

    def _empty(self) -> TextIO:
        if S_ISREG(os.fstat(self._raw.fileno()).st_mode):
            self._raw.truncate(0)
        if self._path.suffix != ".gz":
            return TextIOWrapper(self._raw, encoding="utf-8")
        packed = gzip.GzipFile(self._path.name, "wb", 4, self._raw)
        return TextIOWrapper(cast(BinaryIO, packed), encoding="utf-8")

    def close(self) -> None:
        """Write what is left and close the file; one that holds nothing and was not there goes."""
        if self._raw.closed:
            return
        try:
            if self._text is not None:
                self._text.close()
            elif self._is_new and S_ISREG(os.fstat(self._raw.fileno()).st_mode):
                self._path.unlink(missing_ok=True)
        finally:
            self._raw.close()


def _unpacked(held: bytes) -> bytes:
    """What the beginning of a file says, where it is packed; nothing where a run was killed."""
    if not held.startswith(b"\x1f\x8b"):
        return held
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(held, 4096)
    except zlib.error:
        return held


def _word(text: str) -> str:
    """Keep a name within its line of the header."""
    return " ".join(text.replace("=", "_").split())
