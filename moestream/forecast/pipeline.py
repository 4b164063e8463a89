"""What a line of machines takes, of which each works on what the one before it has done.

Owns the link between two of them and the order of events: numbers in, seconds out. Knows nothing of
models, nor of who has which layers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moestream.errors import RankError

PROGRAM_HOP_S = 0.2e-3
"""What a hop takes the program besides the link, on machines that leave it a core. Measured: 0.05
to 0.16 ms where nothing computes, 1.4 where every core does (docs/machines.md)."""
_LATENCIES = {1: 200e-6, 10: 50e-6, 40: 20e-6}
"""One way, by Gbit/s, where nothing is told: Ethernet through a switch, and Thunderbolt."""
_LINK = re.compile(r"(\d+(?:\.\d+)?)\s*([MG])(?:\s*,\s*(\d+(?:\.\d+)?)\s*(us|ms|s))?", re.ASCII)
_RATES = {"M": 1e6, "G": 1e9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Link:
    """What is between two machines: ``latency_s`` is one way."""

    bits_per_s: float
    latency_s: float

    def wire_s(self, n_bytes: int) -> float:
        """For how long bytes take the link up."""
        return 8 * n_bytes / self.bits_per_s

    def way_s(self) -> float:
        """Until a byte is there, the program's own part with it."""
        return self.latency_s + PROGRAM_HOP_S

    def hop_s(self, n_bytes: int) -> float:
        """Until all of them are."""
        return self.wire_s(n_bytes) + self.way_s()


def link_of(text: str) -> Link:
    """Read ``1G``, ``10G`` or ``40G``, bits a second; with a latency one way, ``1G,0.5ms``.

    Raises:
        RankError: it is none of these.
    """
    match = _LINK.fullmatch(text.strip())
    rate = float(match[1]) * _RATES[match[2]] if match else 0.0
    if match is None or not rate:
        raise RankError(f"{text!r} is no link; expected 1G, 10G or 40G, or with a latency 1G,0.5ms")
    if match[3]:
        return Link(rate, float(match[3]) * _TIMES[match[4]])
    nearest = min(_LATENCIES, key=lambda gbit: abs(gbit * 1e9 - rate))
    return Link(rate, _LATENCIES[nearest])


def row_bytes(row_size: int, tokens: int = 1) -> int:
    """Bytes of tokens' rows between two machines: float32."""
    return 4 * row_size * tokens


@dataclass(frozen=True, slots=True)
class Station:
    """One machine's work on a prompt, which comes in chunks: the seconds of all of them."""

    seconds: float
    gathers: int = 1
    """So many chunks go through it together."""


def prompt_s(stations: Sequence[Station], chunks: int, wire_s: float, way_s: float) -> float:
    """Until the last chunk is back at the first machine; ``wire_s`` are of one chunk.

    Each machine goes on while what it has done is under way. Of all chunks only the last comes back
    from the last machine.
    """
    there = [0.0] * chunks
    for station in stations:
        done = _through(station, there)
        there, sent = [], 0.0
        for at in done:
            sent = max(sent, at) + wire_s
            there.append(sent + way_s)
    return done[-1] + wire_s + way_s if len(stations) > 1 else done[-1]


def _through(station: Station, there: Sequence[float]) -> list[float]:
    """When a machine is done with each chunk that is there at these times."""
    each, free = station.seconds / len(there), 0.0
    done: list[float] = []
    for start in range(0, len(there), station.gathers):
        some = there[start : start + station.gathers]
        free = max(free, some[-1]) + each * len(some)
        done += [free] * len(some)
    return done


def token_s(seconds: Sequence[float], hop_s: float) -> float:
    """A token of one sequence, which goes through all machines and back to the first."""
    return sum(seconds) + (len(seconds) * hop_s if len(seconds) > 1 else 0.0)


def rate(seconds: Sequence[float], hop_s: float, sequences: int) -> float:
    """Tokens a second of so many sequences, as many a pass as there are machines for.

    ``seconds`` are each machine's for a pass of one. No more than one pass a machine is under way.
    """
    under_way = min(sequences, len(seconds))
    return min(under_way / token_s(seconds, hop_s), 1 / max(seconds))
