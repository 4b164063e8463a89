"""GGUF files put together by hand, so that any number in them can lie."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from gguf.constants import GGMLQuantizationType, GGUFValueType

UINT32 = GGUFValueType.UINT32
STRING = GGUFValueType.STRING
ARRAY = GGUFValueType.ARRAY


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return u64(len(encoded)) + encoded


def key(name: str | bytes, type_number: int, payload: bytes) -> bytes:
    return text(name) + u32(type_number) + payload


def array(type_number: int, count: int, payload: bytes) -> bytes:
    return u32(type_number) + u64(count) + payload


def entry(
    name: str | bytes,
    dims: Sequence[int] = (32,),  # as in the file: fastest first
    type_number: int = GGMLQuantizationType.F32,
    offset: int = 0,
    n_dims: int | None = None,
) -> bytes:
    n_dims = len(dims) if n_dims is None else n_dims
    return text(name) + u32(n_dims) + b"".join(map(u64, dims)) + u32(type_number) + u64(offset)


@dataclass
class RawGGUF:
    """The parts of a file; ``n_keys`` and ``n_tensors`` are true unless they are set."""

    keys: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        n_tensors = len(self.entries) if self.n_tensors is None else self.n_tensors
        counts = u32(self.version) + u64(n_tensors) + u64(n_keys)
        return self.magic + counts + b"".join(self.keys) + b"".join(self.entries)

    def build(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data
