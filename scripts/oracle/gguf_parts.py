"""A GGUF file taken apart and put together again, true or not: what ``fuzz_files`` changes.

Knows the format alone, and checks nothing: a value may be of any type, a tensor at any place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY, INT32, FLOAT32 = 8, 9, 5, 6


@dataclass
class Key:
    """A metadata key: the value's type, and of an array its elements' too."""

    name: bytes
    type: int
    value: Any
    of: int = 0


@dataclass
class Entry:
    """A tensor's entry in the directory; ``dims`` are the fastest first."""

    name: bytes
    dims: list[int]
    type: int
    offset: int


@dataclass
class Parts:
    """All of a file."""

    keys: list[Key] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    data: bytes = b""

    def __bytes__(self) -> bytes:
        """The file; numbers are cut to their types."""
        out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(self.entries), len(self.keys)))
        for key in self.keys:
            out += _text(key.name) + struct.pack("<I", key.type)
            if key.type == ARRAY:
                out += struct.pack("<IQ", key.of, len(key.value))
                out += b"".join(_scalar(key.of, value) for value in key.value)
            else:
                out += _scalar(key.type, key.value)
        for entry in self.entries:
            dims = [dim % 2**64 for dim in entry.dims]
            out += _text(entry.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            out += struct.pack("<IQ", entry.type % 2**32, entry.offset % 2**64)
        return bytes(out) + bytes(-len(out) % 32) + self.data


def take_apart(path: Path) -> Parts:
    """Read a sound file without arrays of arrays."""
    data, at = path.read_bytes(), 24
    n_entries, n_keys = struct.unpack_from("<QQ", data, 8)

    def number(code: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(f"<{code}")
        return value

    def text() -> bytes:
        nonlocal at
        size = number("Q")
        at += size
        return data[at - size : at]

    def scalar(type: int) -> Any:
        return text() if type == STRING else number(NUMBERS[type])

    parts = Parts()
    for _ in range(n_keys):
        name, type = text(), number("I")
        if type == ARRAY:
            of, size = number("I"), number("Q")
            parts.keys.append(Key(name, type, [scalar(of) for _ in range(size)], of))
        else:
            parts.keys.append(Key(name, type, scalar(type)))
    for _ in range(n_entries):
        name, dims = text(), [number("Q") for _ in range(number("I"))]
        parts.entries.append(Entry(name, dims, number("I"), number("Q")))
    parts.data = data[at + -at % 32 :]
    return parts


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _scalar(type: int, value: Any) -> bytes:
    if type == STRING:
        return _text(value if isinstance(value, bytes) else str(value).encode())
    code = NUMBERS.get(type)
    if code is None:
        return bytes(8)
    if isinstance(value, bytes):
        value = len(value)
    if code in "fd":
        try:
            return struct.pack(f"<{code}", value)
        except OverflowError:
            return struct.pack(f"<{code}", float("inf"))
    if code == "?":
        return bytes([int(bool(value))])
    whole = int(value) if value == value and abs(value) != float("inf") else 0
    size = struct.calcsize(code)
    return (whole % 2 ** (8 * size)).to_bytes(size, "little")
