"""Measures what this machine gives a prompt: products of many tokens at once, and attention.

Owns how each is measured. What a single token gets is ``calibration``'s.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from moestream.backends.cpu import CpuBackend
from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.folders import scratch_folder
from moestream.gguf import Tensor
from moestream.machine import calibration
from moestream.quants import GGMLQuantizationType, row_bytes

ROWS = 32
"""Tokens of a chunk that one expert gets, about. More go no faster."""
_COLUMNS, _MATRIX_ROWS = 2048, 1024
_BYTE = 0x3C
"""That matrices are made of: a number about 1 or 0.01 in all formats, none that is slow."""
_CHUNK, _AFTER = 512, 1024
_REPEATS = 3


def batch_speeds(backend: CpuBackend, types: Iterable[str]) -> dict[str, float]:
    """Bytes of weights times tokens a second, where many tokens are multiplied with them."""
    return {name: _batch_speed(backend, GGMLQuantizationType[name]) for name in types}


def _batch_speed(backend: CpuBackend, type: GGMLQuantizationType) -> float:
    size = row_bytes(type, _COLUMNS)
    data = np.full((_MATRIX_ROWS, size), _BYTE, np.uint8)
    matrix = backend.matrix(Tensor(type.name, type, (len(data), _COLUMNS), data))
    x = np.ones((ROWS, _COLUMNS), np.float32)
    backend.linear(x, matrix)  # which lays the matrix out
    return data.nbytes * ROWS / calibration.median_s(lambda: backend.linear(x, matrix))


def attention_speed(folder: Path) -> float:
    """Multiplications a second of queries with keys, and of weights with values.

    By how much longer a chunk takes after others than the first; of a tiny model that is written
    to ``folder`` for the moment.
    """
    with scratch_folder(folder) as scratch:
        path = calibration.write_tiny(scratch / "tiny.gguf", context=_CHUNK + _AFTER)
        with Engine.open(path, backend="cpu", context_length=_CHUNK + _AFTER) as engine:
            session = engine.session()
            first_s = _chunk_s(session, 0)
            session.forward([1] * (_AFTER - _CHUNK))
            last_s = _chunk_s(session, _AFTER)
    macs = calibration.LAYERS * 2 * calibration.HIDDEN * _CHUNK * _AFTER
    return macs / max(last_s - first_s, 1e-6)


def _chunk_s(session: Session, after: int) -> float:
    """Seconds of a chunk after so many tokens, which it leaves in the session: the least of some.

    Whatever else runs makes it longer, and nothing makes it shorter.
    """
    seconds = []
    for _ in range(_REPEATS):
        session.truncate(after)
        started = time.perf_counter()
        session.forward([1] * _CHUNK)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
