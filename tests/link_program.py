"""What each rank of a test runs that sends rows faster than the last rank takes them.

``python link_program.py FILE``: nothing is taken up before the file is there, which the first rank
makes once no more can be sent. The last line is how much that was, and what came in the end.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from moestream.engine.timeline import BrokenOff
from moestream.ranks.joining import end_process, joined
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message

ROWS = np.ones((256, 1024), np.float32)
MORE = 40


def rows(number: int) -> Message:
    return Message(Kind.RUN, {"n": number}, ROWS * number)


def first(link: Link, go: Path) -> None:
    sent = 0
    try:
        while True:
            link.send(rows(sent), lambda: True)
            sent += 1
    except BrokenOff:
        go.touch()
    for number in range(sent, sent + MORE):
        link.send(rows(number))
    link.send(Message(Kind.CLOSE))
    came = link.receive(Kind.ROWS).body["came"]
    sys.stdout.write(json.dumps({"held": sent, "came": came == [*range(sent + MORE)]}))


def last(link: Link, go: Path) -> None:
    while not go.exists():
        time.sleep(0.01)
    came = []
    while (message := link.receive()).kind is Kind.RUN:
        np.testing.assert_equal(message.rows, ROWS * message.body["n"])
        came.append(message.body["n"])
    link.send(Message(Kind.ROWS, {"came": came}))


def main(go: str) -> None:
    link = joined()
    if link.rank == 0:
        first(link, Path(go))
        return
    if link.rank == link.size - 1:
        last(link, Path(go))
    while (message := link.receive()).kind is not Kind.END:
        link.send(message)
    link.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_process(0)
