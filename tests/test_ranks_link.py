"""How much is on its way between ranks, and how it is heard to come."""

import json
from pathlib import Path

import numpy as np
import pytest
from ranks import Ranks

from moestream.ranks.message import FRAME_BYTES, Kind, Message
from moestream.ranks.outbox import WINDOW_BYTES
from moestream.ranks.transport import read_message, send_message

PROGRAM = Path(__file__).with_name("link_program.py")
ROWS_BYTES = 1 << 20
WINDOW = WINDOW_BYTES // ROWS_BYTES


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_slow_rank_holds_only_so_many_rows(tmp_path, ranks):
    """A window for each hop, and what the rank between them has in hand; then all of it comes."""
    with Ranks(tmp_path, [[str(PROGRAM), str(tmp_path / "go")]] * ranks) as running:
        out, told = running.end()
        assert running.codes() == [0] * ranks, told
    found = json.loads(out)
    assert found["came"]
    assert WINDOW <= found["held"] <= (ranks - 1) * WINDOW + ranks - 2


class Wire:
    """Keeps what is sent, to be read."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.data = np.empty(0, np.uint8)
        self.sent: list[int] = []

    def send(self, data: np.ndarray) -> None:
        self.sent.append(len(data))
        self.data = np.concatenate([self.data, data])

    def receive(self, n_bytes: int) -> np.ndarray:
        taken, self.data = self.data[:n_bytes], self.data[n_bytes:]
        return taken


def test_a_long_message_is_heard_to_come():
    """However long it takes as a whole: each piece is a sign of life, at both ends."""
    wire, begun, came = Wire(), [], []
    rows = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)
    send_message(wire, Message(Kind.RUN, {}, rows), FRAME_BYTES, lambda: begun.append(1))
    assert max(wire.sent) <= 256 << 10
    assert len(begun) == len(wire.sent)
    found = read_message(wire, FRAME_BYTES, lambda: came.append(1))
    assert len(came) == len(wire.sent)
    np.testing.assert_equal(found.rows, rows)
