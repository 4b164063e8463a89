"""Reading GGUF's basic values from a mapped file, or its beginning: numbers, strings, arrays.

Text that is not UTF-8 keeps its bytes, as Python keeps those of a file's name: models that have
such in a description or a token run elsewhere.

Owns their encoding and the bounds of what may be read, and distrusts every length: nothing is
allocated before the bytes that would fill it are known to be there. Knows nothing of the order in
which a header holds them: that is ``header``.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Container
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from gguf.constants import GGUFValueType

from moestream.errors import ModelFormatError

Data: TypeAlias = "mmap | bytes | bytearray"
MetadataValue: TypeAlias = "int | float | str | bool | list[MetadataValue]"

# What a header may make us allocate. The largest in use, a 262k vocabulary with its merges and
# the tokenizer's JSON, has about 50 MB, 0.8 million array elements and no nested array at all.
MAX_HEADER_BYTES = 256 << 20
MAX_ARRAY_ELEMENTS = 8 << 20
MAX_ARRAY_DEPTH = 4
MAX_NAME_BYTES = 65535

_NUMBERS: dict[GGUFValueType, np.dtype[Any]] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.BOOL: np.dtype("<u1"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
}
_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from


class IncompleteHeader(Exception):  # noqa: N818  # no error: there is more of the file
    """What there is of the file ends before its header; ``needed_bytes`` are the least to go on."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(needed_bytes)
        self.needed_bytes = needed_bytes


class Reader:
    """A cursor over a file, or its beginning, that never steps past the end.

    ``subject`` says what is being read, in words; every error begins with it. Each method reads
    one thing, leaves the cursor behind it, and raises ``ModelFormatError`` where it cannot.
    """

    def __init__(self, data: Data, path: Path, n_bytes: int | None = None) -> None:
        """Begin; ``n_bytes`` are those of the whole file, where ``data`` is not all of it."""
        self.data = data
        self.path = path
        self.subject = "header"
        self.position = 0
        self.n_bytes = len(data) if n_bytes is None else n_bytes
        self._limit = min(self.n_bytes, MAX_HEADER_BYTES)
        self._end = min(len(data), self._limit)
        self._elements_left = MAX_ARRAY_ELEMENTS

    def fail(self, problem: str) -> NoReturn:
        """Raise ``ModelFormatError`` naming the file and the subject."""
        raise ModelFormatError(f"{self.path}: {self.subject}: {problem}")

    def require(self, n_bytes: int, what: str) -> None:
        """Fail unless ``n_bytes`` more can be there to read; IncompleteHeader if not yet."""
        if n_bytes > self._limit - self.position:
            limit = "file ends" if self._limit == self.n_bytes else "largest sane header ends"
            self.fail(
                f"{n_bytes} bytes ({what}) should follow at byte {self.position}, but the {limit} "
                f"at {self._limit}; the file is cut off or damaged, fetch it again"
            )
        if n_bytes > self._end - self.position:
            raise IncompleteHeader(self.position + n_bytes)

    def uint32(self) -> int:
        """Read an unsigned 32-bit number."""
        value: int = _UINT32(self.data, self._advance(4, "a number"))[0]
        return value

    def uint64(self) -> int:
        """Read an unsigned 64-bit number."""
        value: int = _UINT64(self.data, self._advance(8, "a number"))[0]
        return value

    def name(self, taken: Container[str]) -> str:
        """Read the name of a key or tensor, which must not be ``taken`` already."""
        length = self.uint64()
        if not 0 < length <= MAX_NAME_BYTES:
            self.fail(f"its name is {length} bytes long; 1 to {MAX_NAME_BYTES} are possible")
        name = self._text(length)
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            self.fail(f"its name {name!r} is not UTF-8")
        if name in taken:
            self.fail(f"its name {name!r} is a duplicate")
        return name

    def value(self, type_number: int) -> MetadataValue:
        """Read a metadata value of any type."""
        if type_number == GGUFValueType.STRING:
            return self._text(self.uint64())
        if type_number == GGUFValueType.ARRAY:
            return self._array(1)
        return self._numbers(type_number, 1)[0]

    def _advance(self, n_bytes: int, what: str) -> int:
        self.require(n_bytes, what)
        start = self.position
        self.position += n_bytes
        return start

    def _text(self, length: int) -> str:
        start = self._advance(length, "a string")
        return self.data[start : start + length].decode(errors="surrogateescape")

    def _array(self, depth: int) -> list[MetadataValue]:
        if depth > MAX_ARRAY_DEPTH:
            self.fail(f"arrays are nested more than {MAX_ARRAY_DEPTH} deep")
        type_number, count = self.uint32(), self.uint64()
        if count > self._elements_left:
            self.fail(
                f"an array of {count} elements, where {self._elements_left} more are the most "
                "that a sane header has; the file is damaged, fetch it again"
            )
        self._elements_left -= count
        if type_number == GGUFValueType.STRING:
            return self._strings(count)
        if type_number == GGUFValueType.ARRAY:
            self.require(count * 12, f"{count} arrays")
            return [self._array(depth + 1) for _ in range(count)]
        return self._numbers(type_number, count)

    def _numbers(self, type_number: int, count: int) -> list[MetadataValue]:
        try:
            type = GGUFValueType(type_number)
        except ValueError:
            self.fail(f"value type {type_number} is unknown; 0 to {max(GGUFValueType)} are defined")
        dtype = _NUMBERS[type]
        n_bytes = count * dtype.itemsize
        start = self._advance(n_bytes, f"{count} values of type {type.name}")
        raw = np.frombuffer(self.data[start : start + n_bytes], dtype)
        if type == GGUFValueType.BOOL:
            if (raw > 1).any():
                self.fail(f"a bool is {raw.max()}; 0 or 1 was expected")
            raw = raw.astype(np.bool_)
        values: list[MetadataValue] = raw.tolist()
        return values

    def _strings(self, count: int) -> list[MetadataValue]:
        # A vocabulary has 300,000 strings: this is _text() unrolled into one tight loop. Whatever
        # goes wrong in it, _text() then meets again at the same place and words the error.
        self.require(count * 8, f"{count} strings")
        data, end = self.data, self._end
        start = position = self.position
        values: list[MetadataValue] = []
        append = values.append
        try:
            for _ in range(count):
                start = position + 8
                position = start + _UINT64(data, position)[0]
                if position > end:
                    break
                append(data[start:position].decode(errors="surrogateescape"))
        except struct.error:
            pass
        if len(values) < count:
            self.position = start - 8
            self.subject += f", string {len(values)} of {count}"
            self._text(self.uint64())
        self.position = position
        return values
