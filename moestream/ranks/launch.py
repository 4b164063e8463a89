"""How a process learns that it is one of several: what ``mlx.launch`` left in its environment.

Knows nothing of connections, and imports nothing that takes time.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Launch:
    """Which rank this process is, and where each listens: ``address:port``, none if unknown."""

    rank: int
    listening: tuple[str, ...]

    def name(self, rank: int) -> str:
        """How a person is told of a rank."""
        if rank >= len(self.listening):
            return f"rank {rank}"
        return f"rank {rank} ({self.address(rank)})"

    def address(self, rank: int) -> str:
        """Where a rank is, without its port."""
        return self.listening[rank].rpartition(":")[0]


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What the launcher says; None in a process that is alone.

    Source: MLX, python/mlx/_distributed_utils/launch.py.
    """
    rank = environment.get("MLX_RANK", "")
    if not rank.isdecimal():
        return None
    listening = _listening(environment.get("MLX_HOSTFILE", ""))
    if len(listening) < 2 and "MLX_JACCL_COORDINATOR" not in environment:
        return None
    return Launch(int(rank), listening)


def follows() -> bool:
    """Whether another process has the user, his files and his terminal: this is no first rank."""
    launch = launched()
    return launch is not None and launch.rank > 0


def _listening(path: str) -> tuple[str, ...]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            hosts = json.load(file)
        return tuple(str(addresses[0]) for addresses in hosts)
    except (OSError, ValueError, LookupError, TypeError):
        return ()
