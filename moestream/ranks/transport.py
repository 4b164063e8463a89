"""Messages over what carries bytes around the ring, piece by piece.

Owns how a message becomes transfers: both ends make the same ones of it. Knows no threads.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.ranks.message import Message, bytes_to_come, decode, encode, pieces


class Transport(Protocol):
    """What carries bytes around the ring."""

    rank: int
    size: int

    def send(self, data: NDArray[np.uint8]) -> None:
        """To the next rank. Raises RuntimeError: it has gone."""

    def receive(self, n_bytes: int) -> NDArray[np.uint8]:
        """Of the rank before. Raises RuntimeError: it has gone."""


def send_message(
    ring: Transport, message: Message, frame_bytes: int, begins: Callable[[], None]
) -> None:
    """Send a message; ``begins`` is called before each piece.

    Raises:
        RuntimeError: the next rank has gone.
    """
    data = encode(message, frame_bytes)
    for piece in pieces(len(data), frame_bytes):
        begins()
        ring.send(data[piece])


def read_message(ring: Transport, frame_bytes: int, came: Callable[[], None]) -> Message:
    """Wait for a message; ``came`` is called after each piece.

    Raises:
        RuntimeError: the rank before has gone.
        RankError, ValueError, KeyError, TypeError: what it sends is no message.
    """
    parts: list[NDArray[np.uint8]] = [ring.receive(frame_bytes)]
    began = time.perf_counter()
    came()
    size = frame_bytes + bytes_to_come(parts[0])
    for piece in pieces(size, frame_bytes):
        if piece.start:
            parts.append(ring.receive(piece.stop - piece.start))
            came()
    took_s = time.perf_counter() - began
    return replace(decode(np.concatenate(parts) if len(parts) > 1 else parts[0]), took_s=took_s)
