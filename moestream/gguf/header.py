"""The header of one GGUF file: typed metadata and a tensor directory that is known to be true.

Owns the order of things in a header and what must hold between them and the file's size. Knows
nothing of other shards, of views, or of what any key means, ``general.alignment`` excepted.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TypeVar

from moestream.errors import ModelFormatError, UnsupportedQuantError
from moestream.gguf.mistaken import beginning_told
from moestream.gguf.parser import Data, MetadataValue, Reader
from moestream.quants import GGMLQuantizationType, row_bytes

_T = TypeVar("_T")
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
# The shortest that one entry can be: what lies about the counts is caught before any loop.
_MIN_KEY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    ``shape`` is in NumPy's order, slowest axis first: (rows, columns), (experts, rows, columns).
    ``offset`` counts bytes from the start of file number ``shard`` of the model.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    shard: int


@dataclass(frozen=True, slots=True)
class Header:
    """What one file says of itself; every tensor lies inside it and overlaps no other."""

    version: int
    metadata: dict[str, MetadataValue]
    tensors: tuple[TensorInfo, ...]


def read_header(data: Data, path: Path, n_bytes: int | None = None) -> Header:
    """Parse and check the header of a file; ``path`` is for messages.

    Args:
        data: the whole file, mapped, or its beginning.
        path: for messages.
        n_bytes: bytes of the whole file, where ``data`` is a part of it.

    Raises:
        IncompleteHeader: the header goes on after ``data``.
        ModelFormatError: naming file, key or tensor, and the numbers that do not fit.
        UnsupportedQuantError: a tensor's type number is unknown to the ``gguf`` package.
    """
    reader = Reader(data, path, n_bytes)
    version = _read_version(reader)
    n_tensors, n_keys = reader.uint64(), reader.uint64()
    reader.require(
        n_keys * _MIN_KEY_BYTES + n_tensors * _MIN_TENSOR_BYTES,
        f"{n_keys} metadata keys and {n_tensors} tensors",
    )
    metadata = _read_metadata(reader, n_keys)
    alignment = _alignment(reader, metadata)
    tensors = _read_directory(reader, n_tensors)
    data_start = -(-reader.position // alignment) * alignment
    placed = {
        name: replace(info, offset=data_start + info.offset) for name, info in tensors.items()
    }
    _check_places(reader, placed.values(), data_start, alignment)
    return Header(version, metadata, tuple(placed.values()))


def _read_version(reader: Reader) -> int:
    magic = bytes(reader.data[:4])
    if magic != b"GGUF":
        beginning = bytes(reader.data[:64])
        told = beginning_told(beginning) or f"it starts with {_shown(beginning)}, not with 'GGUF'"
        reader.fail(f"not a GGUF file: {told}")
    reader.position = len(magic)
    version = reader.uint32()
    if version and version & 0xFFFF == 0:
        reader.fail("a big-endian GGUF file; only little-endian ones can be read")
    if version not in VERSIONS:
        reader.fail(f"GGUF version {version}; versions 2 and 3 can be read")
    return version


def _read_named(reader: Reader, count: int, kind: str, read: Callable[[str], _T]) -> dict[str, _T]:
    """Read so many of a kind, each after its name, which no other one has."""
    found: dict[str, _T] = {}
    for index in range(count):
        reader.subject = f"{kind} {index} of {count}"
        name = reader.name(found)
        reader.subject = f"{kind} {name!r}"
        found[name] = read(name)
    return found


def _read_metadata(reader: Reader, count: int) -> dict[str, MetadataValue]:
    return _read_named(reader, count, "metadata key", lambda _: reader.value(reader.uint32()))


def _alignment(reader: Reader, metadata: dict[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        reader.subject = "metadata key 'general.alignment'"
        reader.fail(f"{alignment!r:.40}; a power of two was expected")
    return alignment


def _read_directory(reader: Reader, count: int) -> dict[str, TensorInfo]:
    """Read all entries; their offsets still count from the start of the tensor data."""
    return _read_named(reader, count, "tensor", partial(_read_entry, reader))


def _read_entry(reader: Reader, name: str) -> TensorInfo:
    n_dims = reader.uint32()
    if not 1 <= n_dims <= MAX_DIMS:
        reader.fail(f"{n_dims} dimensions; 1 to {MAX_DIMS} are possible")
    shape = tuple(reader.uint64() for _ in range(n_dims))[::-1]
    if len(shape) == MAX_DIMS and shape[0] == 1:
        shape = shape[1:]  # no tensor has so many: an axis of length one says nothing
    if not 0 < prod(shape) < 1 << 63:
        reader.fail(f"shape {shape} has {prod(shape)} values; 1 to 2**63 - 1 are possible")
    type_number, offset = reader.uint32(), reader.uint64()
    try:
        type = GGMLQuantizationType(type_number)
        n_bytes = prod(shape[:-1]) * row_bytes(type, shape[-1])
    except ValueError:
        raise UnsupportedQuantError(
            f"{reader.path}: tensor {name!r} has the type number {type_number}, unknown here; "
            "use another quantisation of the model, or newer releases of moestream and gguf"
        ) from None
    except ModelFormatError as error:
        reader.fail(f"shape {shape}: {error}")
    return TensorInfo(name, type, shape, offset, n_bytes, shard=0)


def _check_places(
    reader: Reader, tensors: Iterable[TensorInfo], data_start: int, alignment: int
) -> None:
    size = reader.n_bytes
    occupied_until, before = data_start, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        reader.subject = f"tensor {tensor.name!r}"
        end = tensor.offset + tensor.n_bytes
        place = f"lies at bytes {tensor.offset} to {end}"
        if end > size:
            reader.fail(
                f"{place}, but the file ends at {size}; it is cut off or damaged, fetch it again"
            )
        if (tensor.offset - data_start) % alignment:
            reader.fail(
                f"{place}, which does not begin at a multiple of the alignment of {alignment} "
                f"after the start of the data at {data_start}"
            )
        if tensor.offset < occupied_until:
            reader.fail(f"{place}, but {before!r} before it ends only at {occupied_until}")
        occupied_until, before = end, tensor.name


def _shown(data: bytes) -> str:
    """The first of some bytes, as text where they are that."""
    first = data[:16]
    text = first.decode("ascii", "replace")
    return f"{text!r}" if first.isascii() and text.isprintable() else f"bytes {first[:4].hex(' ')}"
