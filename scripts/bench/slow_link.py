"""A TCP connection that is slow on purpose: between two ports here, with a delay and a rate."""

from __future__ import annotations

import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 1 << 16


def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def slow_link(to: int, delay_s: float, bytes_per_s: float) -> Iterator[int]:
    """The port of a link to another port; a rate of 0 is no limit."""
    port = free_port()
    process = multiprocessing.Process(
        target=_serve, args=(port, to, delay_s, bytes_per_s), daemon=True
    )
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


def _serve(port: int, to: int, delay_s: float, bytes_per_s: float) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        near, _ = server.accept()
    far = _connect(to)
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ways = [(near, far), (far, near)]
    threads = [threading.Thread(target=_carry, args=(*way, delay_s, bytes_per_s)) for way in ways]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _connect(port: int) -> socket.socket:
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.05)


def _carry(source: socket.socket, target: socket.socket, delay_s: float, rate: float) -> None:
    """Read at once, and write when the link would have."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def write() -> None:
        free_at = 0.0
        while True:
            came, data = pieces.get()
            free_at = max(free_at, came) + (len(data) / rate if rate else 0)
            time.sleep(max(free_at + delay_s - time.perf_counter(), 0))
            with suppress(OSError):
                target.sendall(data)
            if not data:
                with suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                return

    writer = threading.Thread(target=write)
    writer.start()
    data = b"begin"
    while data:
        try:
            data = source.recv(_PIECE_BYTES)
        except OSError:
            data = b""
        pieces.put((time.perf_counter(), data))
    writer.join()
