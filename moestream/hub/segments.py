"""What there is of a file that comes in segments, and the note by which a later run knows it.

A segment grows at its end. Owns the note's bytes; knows nothing of where they are kept.
"""

import struct
from dataclasses import dataclass
from typing import Self

LEAST_BYTES = 8 << 20
MOST_BYTES = 256 << 20
"""Of a segment: one request each. The hub counts requests."""
_USUAL_COUNT = 64
"""Segments of a file, where that keeps their size between the two."""
_MAGIC = b"moestream part 2"
_HEAD = struct.Struct("<16sQQ")
"""The magic, bytes of a segment, and when the machine was started."""
_COUNT = struct.Struct("<Q")
_SAME_START_S = 60
"""Two readings of one start differ by less: the clock may have been set between them."""


@dataclass(slots=True)
class Segments:
    """A file of ``size_bytes``, cut into segments; ``counts`` are their bytes so far."""

    size_bytes: int
    segment_bytes: int
    counts: list[int]

    @classmethod
    def begun(cls, size_bytes: int, there_bytes: int) -> Self:
        """A file of which the first bytes are there, and nothing after them."""
        segment = min(max(-(-size_bytes // _USUAL_COUNT), LEAST_BYTES), MOST_BYTES)
        starts = range(0, size_bytes, segment)
        counts = [min(max(there_bytes - start, 0), segment, size_bytes - start) for start in starts]
        return cls(size_bytes, segment, counts)

    @classmethod
    def read(cls, note: bytes, size_bytes: int, started_s: int) -> Self | None:
        """Take up what a note tells; None if it is none, or of another file.

        What was written before the machine was last started counts by whole segments alone, which
        were on the disk when they were noted. The last of the others may never have got there.
        """
        if len(note) < _HEAD.size:
            return None
        magic, segment, noted_s = _HEAD.unpack_from(note)
        if magic != _MAGIC or not 0 < segment <= MOST_BYTES:
            return None
        starts = range(0, size_bytes, segment)
        if len(note) != _HEAD.size + _COUNT.size * len(starts):
            return None
        counts = [count for (count,) in _COUNT.iter_unpack(note[_HEAD.size :])]
        found = cls(size_bytes, segment, counts)
        if any(count > found.length(index) for index, count in enumerate(counts)):
            return None
        if abs(noted_s - started_s) > _SAME_START_S:
            found.counts = [n if n == found.length(i) else 0 for i, n in enumerate(counts)]
        return found

    def note(self, started_s: int) -> bytes:
        """The whole note."""
        head = _HEAD.pack(_MAGIC, self.segment_bytes, started_s)
        return head + b"".join(map(_COUNT.pack, self.counts))

    def note_of(self, index: int) -> tuple[int, bytes]:
        """Where in the note a segment is, and what is to be there now."""
        return _HEAD.size + _COUNT.size * index, _COUNT.pack(self.counts[index])

    def length(self, index: int) -> int:
        """Bytes of a segment when it is whole."""
        return min(self.segment_bytes, self.size_bytes - index * self.segment_bytes)

    def end(self, index: int) -> int:
        """The byte of the file after a segment."""
        return index * self.segment_bytes + self.length(index)

    def position(self, index: int) -> int:
        """The byte of the file that comes next in a segment."""
        return index * self.segment_bytes + self.counts[index]

    def missing(self) -> list[int]:
        """The segments that are not whole, in order."""
        return [index for index in range(len(self.counts)) if not self.is_whole(index)]

    def is_whole(self, index: int) -> bool:
        """Whether all of a segment is there."""
        return self.counts[index] == self.length(index)

    @property
    def there_bytes(self) -> int:
        """Bytes that are there, in all."""
        return sum(self.counts)

    @property
    def reach_bytes(self) -> int:
        """How long a file with all that is there is at least."""
        there = (self.position(index) for index, count in enumerate(self.counts) if count)
        return max(there, default=0)

    @property
    def prefix_bytes(self) -> int:
        """Bytes that are there from the start on, with no gap."""
        first = next((i for i in range(len(self.counts)) if not self.is_whole(i)), None)
        return self.size_bytes if first is None else self.position(first)
