"""Routing traces: which experts a run asked for, one row a routed expert.

Owns the file format, which is BigMoeOnEdge's ``route_trace v1``, so that its traces and ours read
alike. Knows nothing of models or of what is done with a trace.

::

    # route_trace v1
    # model=NAME arch=NAME n_layer=48 n_expert=128 n_expert_used=6
    # layer=0 expert_bytes=3059712
    turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
    0,0,0,0,0,49,0.221297,0,3059712

``phase`` is 0 in prefill and 1 in decode, ``step`` the token's position, ``slot`` the expert's rank
in its token; ``residency`` says whether the expert was in memory, ``expert_bytes`` what was read
for it. A prefill pass is written a layer at a time, all its tokens in order.
"""

import gzip
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

from moestream.errors import TraceError

MAGIC = "# route_trace v1"
COLUMNS = (
    *("turn", "phase", "step", "layer", "slot", "expert"),
    *("weight", "residency", "expert_bytes"),
)
PREFILL, DECODE = 0, 1
_ROW = np.dtype([(name, "<f4" if name == "weight" else "<i4") for name in COLUMNS])
_PAIR = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)")  # a model's path may have spaces in it


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """What a trace says of its model. ``expert_bytes`` is the size of one expert, by layer."""

    num_layers: int
    num_experts: int
    num_experts_per_tok: int
    expert_bytes: Mapping[int, int] = field(default_factory=dict)
    model: str = ""
    arch: str = ""

    @property
    def total_bytes(self) -> int:
        """Size of all experts of all layers."""
        return self.num_experts * sum(self.expert_bytes.values())

    @property
    def token_bytes(self) -> int:
        """Size of the experts of one token: below this, a global LRU never hits."""
        return self.num_experts_per_tok * sum(self.expert_bytes.values())


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace in memory. ``rows`` (N,) is structured, its fields named as the file's columns."""

    path: Path
    header: TraceHeader
    rows: NDArray[np.void]


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace, compressed when its name ends in ``.gz``.

    Raises:
        TraceError: the file is not a trace, is damaged, or does not say how big an expert is;
            the message names the file and, where there is one, the line.
    """
    path = Path(path)
    with _naming(path), _open(path) as file:
        header, n_lines = _read_header(path, file)
    with _naming(path):
        rows = _load(path, n_lines)
        if rows is None or not _is_sound(rows, header):
            _blame(path, header, n_lines)
        return Trace(path, _complete(path, header, rows), rows)


def _load(path: Path, n_lines: int) -> NDArray[np.void] | None:
    """Read the rows after ``n_lines`` lines, or nothing where NumPy finds a fault or no row."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        try:
            rows = np.loadtxt(
                str(path), _ROW, comments=None, delimiter=",", skiprows=n_lines, ndmin=1
            )
        except UnicodeDecodeError:
            raise
        except ValueError:  # its message counts rows, not the lines of the file
            return None
    return rows if len(rows) else None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what its bytes make Python raise."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TraceError(f"{path}: damaged or cut short; record it again") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not a routing trace: it is not text") from None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read_header(path: Path, file: TextIO) -> tuple[TraceHeader, int]:
    """Return the header and how many lines come before the first row."""
    values: dict[str, str] = {}
    sizes: dict[int, int] = {}
    for number, line in enumerate(file, 1):
        if not line.startswith("#"):
            if tuple(line.strip().split(",")) != COLUMNS:
                expected = f"expected the columns {','.join(COLUMNS)}"
                raise TraceError(f"{path}, line {number}: {line[:80].strip()!r}: {expected}")
            return _header(path, values, sizes), number
        pairs = dict(_PAIR.findall(line))
        if "layer" in pairs:
            layer = _integer(path, number, pairs, "layer")
            sizes[layer] = _integer(path, number, pairs, "expert_bytes")
        else:
            values |= pairs
    raise TraceError(f"{path}: not a routing trace: it has no line of column names")


def _header(path: Path, values: Mapping[str, str], sizes: Mapping[int, int]) -> TraceHeader:
    return TraceHeader(
        num_layers=_integer(path, None, values, "n_layer"),
        num_experts=_integer(path, None, values, "n_expert"),
        num_experts_per_tok=_integer(path, None, values, "n_expert_used"),
        expert_bytes=sizes,
        model=values.get("model", ""),
        arch=values.get("arch", ""),
    )


def _integer(path: Path, line: int | None, values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "nothing")
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        where = f"{path}, line {line}" if line else f"{path}, header"
        raise TraceError(f"{where}: {name} is {text}, expected a whole number")
    return int(text)


def _is_sound(rows: NDArray[np.void], header: TraceHeader) -> bool:
    bounds = {"phase": 2, "layer": header.num_layers, "expert": header.num_experts}
    return (
        all(bool((rows[name] >= 0).all()) for name in COLUMNS if name != "weight")
        and all(bool((rows[name] < bound).all()) for name, bound in bounds.items())
        and bool(np.isfinite(rows["weight"]).all())
    )


def _complete(path: Path, header: TraceHeader, rows: NDArray[np.void]) -> TraceHeader:
    """Find sizes that the header lacks in the rows of experts that were read."""
    sizes = dict(header.expert_bytes)
    for layer in np.flatnonzero(np.bincount(rows["layer"])).tolist():
        if not sizes.get(layer):
            sizes[layer] = int(rows["expert_bytes"][rows["layer"] == layer].max())
        if not sizes[layer]:
            raise TraceError(
                f"{path}: does not say how big an expert of layer {layer} is; "
                f"add a line '# layer={layer} expert_bytes=SIZE' at its head"
            )
    return replace(header, expert_bytes=sizes)


def _blame(path: Path, header: TraceHeader, n_lines: int) -> NoReturn:
    """Find the line that is wrong, the slow way."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number > n_lines and line.strip():
                reason = _fault(line.strip().split(","), header)
                if reason:
                    raise TraceError(f"{path}, line {number}: {reason}")
    raise TraceError(f"{path}: the trace has no rows")


def _fault(cells: list[str], header: TraceHeader) -> str | None:
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} columns, expected {len(COLUMNS)}; was it cut short?"
    bounds = {"phase": 2, "layer": header.num_layers, "expert": header.num_experts}
    for name, cell in zip(COLUMNS, cells, strict=True):
        if name == "weight":
            if not _is_finite(cell):
                return f"weight is {cell!r}, expected a number"
            continue
        bound = bounds.get(name, 2**31)
        if not re.fullmatch(r"\s*\d+\s*", cell, re.ASCII) or int(cell) >= bound:
            return f"{name} is {cell!r}, expected a whole number below {bound}"
    return None


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
