"""The one file that joins machines: bytes to the next rank and from the one before.

Owns what is MLX's. Its calls block, and nothing but the end of the process breaks them off, so each
direction is one thread's alone: see ``link``.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.errors import RankError
from moestream.ranks.launch import Launch

_NICE = 19
"""Of MLX's threads. Measured with two ranks on two busy cores: 2 to 4 times the tokens a second."""
JOIN_S = 8
"""For how long the others are waited for."""


class Ring:
    """All ranks, each of which sends to the next, the last to the first."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank: int = group.rank()
        self.size: int = group.size()
        self._streams: dict[str, Any] = {}

    @classmethod
    def join(cls, launch: Launch) -> "Ring":
        """Wait for the others and connect.

        Where they do not come, a process beside this one says so and ends it, for the call that
        waits hears of no signal.

        Raises:
            RankError: MLX is not installed, or a connection cannot be made.
        """
        try:
            import mlx.core as mx
        except ImportError:
            raise RankError(
                f"{launch.name(launch.rank)} has no MLX, which joins machines; run there: "
                "pip install 'mlx[cpu]' (on a Mac: pip install mlx)"
            ) from None
        from moestream.backends.mlx_core import limit_memory

        limit_memory()  # while nothing is awaited: later it would be for ever
        watch = _watch(launch)
        try:
            before = _threads()
            group = mx.distributed.init(strict=True)
        except RuntimeError as error:
            raise RankError(
                f"{launch.name(launch.rank)} cannot be joined with the others: {error}; see that "
                "its address is this machine's and its port is free (mlx.launch --starting-port)"
            ) from None
        finally:
            watch.terminate()
            watch.wait()
        _give_way(_threads() - before)
        return cls(group)

    def send(self, data: NDArray[np.uint8]) -> None:
        """Give bytes to the next rank. Raises RuntimeError: it has gone."""
        import mlx.core as mx

        stream, to = self._stream("send"), (self.rank + 1) % self.size
        mx.eval(mx.distributed.send(mx.array(data), to, group=self._group, stream=stream))

    def receive(self, n_bytes: int) -> NDArray[np.uint8]:
        """Take so many bytes of the rank before. Raises RuntimeError: it has gone."""
        import mlx.core as mx

        stream, source = self._stream("receive"), (self.rank - 1) % self.size
        shape, kind = (n_bytes,), mx.uint8
        return np.array(
            mx.distributed.recv(shape, kind, source, group=self._group, stream=stream), np.uint8
        )

    def _stream(self, direction: str) -> Any:
        """MLX runs what is on one stream in its order: a send would wait for what is received."""
        import mlx.core as mx

        if direction not in self._streams:
            self._streams[direction] = mx.new_stream(mx.cpu)
        return self._streams[direction]


def _watch(launch: Launch) -> "subprocess.Popen[bytes]":
    """A process that ends this one unless it is ended first."""
    script = Path(__file__).with_name("waiting.py")
    others = [
        f"{launch.name(rank)}={launch.listening[rank]}"
        for rank in range(len(launch.listening))
        if rank != launch.rank
    ]
    quiet = "quiet" if launch.rank else "tell"
    command = [sys.executable, "-I", str(script), str(os.getpid()), str(JOIN_S), quiet, *others]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=sys.stderr)


def _threads() -> set[int]:
    """Those of the process, where the system tells of them."""
    folder = Path("/proc/self/task")
    return {int(each.name) for each in folder.iterdir()} if folder.is_dir() else set()


def _give_way(threads: set[int]) -> None:
    """Have threads leave the cores to others: MLX's ask their socket over and over, and wait so."""
    for each in threads:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, each, _NICE)
