"""What ranks say to each other: a kind, a few fields, and rows of hidden states.

Owns how that lies in bytes. A message begins with a frame of a size that both know; what does not
fit into it follows in pieces, so that the message of one token is one transfer, and that of many is
heard to come.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.errors import RankError

FRAME_BYTES = 4096
"""Before the model is known."""
_PIECE_BYTES = 256 << 10
"""On a link so slow that this takes as long as silence is borne, nothing can be run."""
_HEAD = struct.Struct("<4sHHIQ")
_MAGIC = b"moes"
_PROTOCOL = 3

Rows = NDArray[np.float32]


class Kind(IntEnum):
    """What a message is."""

    BEAT = 0
    """The sender lives."""
    HELLO = 1
    """What each rank is and has."""
    DIVISION = 2
    """Which layers each is to load; later frames are of its size."""
    READY = 3
    """They are loaded."""
    RUN = 4
    """Rows to be taken through layers."""
    ROWS = 5
    """What came of them."""
    CLOSE = 6
    """The model is no longer needed."""
    END = 7
    """The process is to end."""
    FAULT = 8
    """A rank has failed."""
    TAKEN = 9
    """A rank has taken up rows, and the one before it may send more."""
    CONTENT = 10
    """What the bytes are that each rank reads."""
    COUNT = 11
    """Uses of experts are to be counted from now on."""
    COUNTS = 12
    """How many there were."""
    FACTS = 13
    """What a host is, and which file it has."""
    ECHO = 14
    """To be sent on at once."""
    LOAD = 15
    """Many bytes, to be sent on, with how fast they came."""
    PROMPTS = 16
    """Something is to be done with what each rank has stored of prompts."""


@dataclass(slots=True)
class Message:
    """``rows`` are float32 of any shape, or None."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)
    rows: Rows | None = None
    took_s: float = 0.0
    """From its first piece to its last, where it came."""

    @property
    def row_bytes(self) -> int:
        """Of ``rows``."""
        return 0 if self.rows is None else self.rows.nbytes

    def take_rows(self) -> Rows:
        """``rows``, which the message holds no longer, whoever holds the message."""
        assert self.rows is not None
        rows, self.rows = self.rows, None
        return rows


def encode(message: Message, frame_bytes: int) -> NDArray[np.uint8]:
    """As bytes, of at least one frame."""
    body, rows = dict(message.body), np.empty(0, np.float32)
    if message.rows is not None:
        rows, body["shape"] = np.ascontiguousarray(message.rows, np.float32), message.rows.shape
    text = json.dumps(body, separators=(",", ":")).encode()
    head = _HEAD.pack(_MAGIC, _PROTOCOL, message.kind, len(text), rows.nbytes) + text
    end = len(head) + rows.nbytes
    whole = np.zeros(max(end, frame_bytes), np.uint8)  # memory that is new takes more than a copy
    whole[: len(head)] = np.frombuffer(head, np.uint8)
    whole[len(head) : end] = rows.reshape(-1).view(np.uint8)
    return whole


def pieces(n_bytes: int, frame_bytes: int) -> Iterator[slice]:
    """The transfers that so many bytes of a message take: its frame, and what follows that."""
    yield slice(0, frame_bytes)
    for start in range(frame_bytes, n_bytes, _PIECE_BYTES):
        yield slice(start, min(start + _PIECE_BYTES, n_bytes))


def bytes_to_come(frame: NDArray[np.uint8]) -> int:
    """How much of a message follows its first frame.

    Raises:
        RankError: the bytes are no message, or one of another protocol.
    """
    magic, protocol, _, text, data = _HEAD.unpack_from(frame.data)
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise RankError("it speaks another protocol; have the same version of moestream on all")
    return max(int(_HEAD.size + text + data) - len(frame), 0)


def decode(whole: NDArray[np.uint8]) -> Message:
    """Of all of its bytes."""
    _, _, kind, text, data = _HEAD.unpack_from(whole.data)
    begin = _HEAD.size + text
    body = json.loads(whole[_HEAD.size : begin].tobytes())
    shape = body.pop("shape", None)
    rows = None
    if shape is not None:
        rows = np.frombuffer(whole[begin : begin + data].tobytes(), np.float32).reshape(shape)
    return Message(Kind(kind), body, rows)
