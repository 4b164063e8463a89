"""Several processes on loopback that share a model, started as ``mlx.launch`` starts them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core", reason="needs MLX, which joins machines")
if not mx.distributed.is_available():
    pytest.skip("MLX has no ring here", allow_module_level=True)

LIMIT_S = 240


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
    """Ports that nobody listens at just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
