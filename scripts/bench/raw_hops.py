"""What a round trip through all ranks takes of plain sockets, of MLX's calls and of the program.

python scripts/bench/raw_hops.py [--ranks 2,3] [--bytes 8192,1048576] [--delay-ms 0] [--gbit 0]

Each rank gives the next what it was given, so that the same bytes are sent as in decoding: ``ring``
is MLX's send and receive as ``ranks/ring.py`` calls them, ``link`` the program's threads and
messages on top of that, ``socket`` TCP alone. Medians, in milliseconds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.rank_processes import run_ranks
from moestream.ranks.joining import end_process, joined

WARM_UP = 20


def timed(trip: Callable[[], None], times: int) -> float:
    """Milliseconds of a trip, in the middle of many."""
    took = []
    for _ in range(WARM_UP + times):
        started = time.perf_counter()
        trip()
        took.append(time.perf_counter() - started)
    return 1e3 * statistics.median(took[WARM_UP:])


def ring(n_bytes: int, times: int) -> float:
    """MLX's calls alone."""
    from moestream.ranks.launch import launched
    from moestream.ranks.ring import Ring

    launch = launched()
    assert launch is not None
    group, data = Ring.join(launch), np.zeros(n_bytes, np.uint8)

    def trip() -> None:
        if group.rank == 0:
            group.send(data)
            group.receive(n_bytes)
        else:
            group.send(group.receive(n_bytes))

    return timed(trip, times)


def link(n_bytes: int, times: int) -> float:
    """Messages, as passes send them."""
    from moestream.ranks.message import FRAME_BYTES, Kind, Message

    line, rows = joined(), np.zeros((1, n_bytes // 4), np.float32)
    assert line is not None
    division = Message(Kind.DIVISION, {"frame_bytes": FRAME_BYTES + n_bytes})

    def trip() -> None:
        if line.rank == 0:
            line.send(Message(Kind.RUN, {"n": 1}, rows))
            line.receive(Kind.RUN)
        else:
            line.send(line.receive(Kind.RUN))

    line.send(division if line.rank == 0 else line.receive(Kind.DIVISION))
    if line.rank == 0:
        line.receive(Kind.DIVISION)
    return timed(trip, times)


def plain(n_bytes: int, times: int) -> float:
    """TCP alone: to the next rank's port, from whoever connects to this one's."""
    rank = int(os.environ["MLX_RANK"])
    hosts = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
    ports = [int(addresses[0].rpartition(":")[2]) for addresses in hosts]
    with socket.create_server(("127.0.0.1", ports[rank])) as server:
        after = _connect(ports[(rank + 1) % len(ports)])
        before, _ = server.accept()
    for each in (before, after):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data, room = bytes(n_bytes), bytearray(n_bytes)

    def receive() -> None:
        got = 0
        while got < n_bytes:
            got += before.recv_into(memoryview(room)[got:])

    def trip() -> None:
        if rank == 0:
            after.sendall(data)
            receive()
        else:
            receive()
            after.sendall(room)

    return timed(trip, times)


def _connect(port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.02)


WAYS = {"socket": plain, "ring": ring, "link": link}


def main() -> None:
    """Measure each way with each number of ranks and bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", default="2,3")
    parser.add_argument("--bytes", default="8192,1048576")
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--gbit", type=float, default=0)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        way, n_bytes, times = args.child
        took = WAYS[way](int(n_bytes), int(times))
        if os.environ["MLX_RANK"] == "0":
            print(took, flush=True)
        if way == "link":
            end_process(0)
        if way == "ring":
            os._exit(0)  # its threads would wait for ever
        return
    rows = []
    for ranks in map(int, args.ranks.split(",")):
        for n_bytes in map(int, args.bytes.split(",")):
            found = {}
            for way in WAYS:
                child = ["--child", way, str(n_bytes), str(args.times)]
                command = [sys.executable, "-P", __file__, *child]
                ended = run_ranks(command, ranks, args.delay_ms, args.gbit)
                found[way] = round(float(ended[0].out), 3)
            rows.append({"ranks": ranks, "bytes": n_bytes, "delay_ms": args.delay_ms} | found)
            print(rows[-1], flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
