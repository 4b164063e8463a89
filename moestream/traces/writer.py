"""Writes the routing of a run in the format that ``trace`` reads.

Knows the columns; is told what was routed and what was in memory.
"""

import gzip
import os
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moestream.closing import Closing
from moestream.traces.format import COLUMNS, MAGIC, TraceHeader


class TraceWriter(Closing):
    """Writes a trace as a run goes, compressed when its name ends in ``.gz``. A context manager."""

    def __init__(self, path: str | os.PathLike[str], header: TraceHeader) -> None:
        self._sizes = header.expert_bytes
        self._file = create_text(Path(path))
        shape = f"n_layer={header.num_layers} n_expert={header.num_experts}"
        used = f"n_expert_used={header.num_experts_per_tok}"
        lines = [MAGIC, f"# model={_word(header.model)} arch={_word(header.arch)} {shape} {used}"]
        lines += [f"# layer={layer} expert_bytes={n}" for layer, n in self._sizes.items()]
        self._file.write("\n".join([*lines, ",".join(COLUMNS)]) + "\n")

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

    def close(self) -> None:
        """Write what is left and close the file."""
        self._file.close()


def create_text(path: Path) -> TextIO:
    """Create a text file, compressed when its name ends in ``.gz``."""
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", compresslevel=4)
    return path.open("w", encoding="utf-8")


def _word(text: str) -> str:
    """Keep a name within its line of the header."""
    return " ".join(text.replace("=", "_").split())
