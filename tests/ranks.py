"""Several processes on loopback that share a model, started as ``mlx.launch`` starts them."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core", reason="needs MLX, which joins machines")
if not mx.distributed.is_available():
    pytest.skip("MLX has no ring here", allow_module_level=True)

LIMIT_S = 240
_PORTS = (12_000, 32_000)


class Ranks:
    """Processes by rank. A context manager, which leaves none of them running."""

    def __init__(
        self,
        folder: Path,
        commands: Sequence[Sequence[str]],
        ranks: int = 0,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        """Start one for each command, of ``ranks`` that there are to be, if more."""
        hosts = [[f"127.0.0.1:{port}"] for port in free_ports(ranks or len(commands))]
        (folder / "hosts.json").write_text(json.dumps(hosts))
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "MLX_HOSTFILE": str(folder / "hosts.json"),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, *command],
                env=environment | {"MLX_RANK": str(rank)},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, command in enumerate(commands)
        ]
        self.first = self.processes[0]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for process in self.processes:
                stack.enter_context(process)
                process.kill()

    def end(self) -> tuple[str, str]:
        """Wait for the first; return what it wrote."""
        return self.first.communicate(timeout=LIMIT_S)

    def codes(self, within_s: float = 10) -> list[int]:
        """Wait for all; return their exit statuses."""
        until = time.monotonic() + within_s
        return [each.wait(max(until - time.monotonic(), 0.01)) for each in self.processes]


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens at just now.

    They lie below those that the system gives to whoever asks for any, so that none of them is
    given away before it is used.
    """
    while True:
        base = random.randrange(*_PORTS)
        ports = list(range(base, base + count))
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return ports
