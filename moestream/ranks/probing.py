"""What hosts are and how fast they talk, before anything is loaded: what ``doctor`` asks.

Owns the questions, on the first rank and on the others. Knows no table.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moestream import __version__
from moestream.backends import default_backend
from moestream.errors import MoestreamError, RankError
from moestream.gguf import GGUFFile
from moestream.ranks.hello import Hello, copy_speed, other_version, require_alike
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message
from moestream.streaming.memory import available_memory

Resolve = Callable[[str], Path]
"""Finds this machine's file of a model."""
_ROUNDS = 50
_LOAD_ROWS = (4096, 1024)
"""16 MiB: what a chunk of a large model's prompt takes."""


@dataclass(frozen=True, slots=True)
class Host:
    """One rank's program, machine, and file, if one was asked for."""

    name: str
    version: str
    backend: str
    memory_bytes: int
    speed: float
    """Bytes a second that are copied from memory to memory."""
    hello: dict[str, Any] | None = None
    """What it would say of the file, to be opened with the others."""
    wrong: str | None = None
    """Why it has no such file."""

    @classmethod
    def of(cls, name: str, model: str | None, resolve: Resolve) -> "Host":
        """Look at this machine."""
        hello, wrong = None, None
        if model is not None:
            try:
                with GGUFFile.open(resolve(model)) as file:
                    hello = Hello.of(name, file, {}).to_dict()
            except (MoestreamError, OSError) as error:
                wrong = str(error)
        free = available_memory().available_bytes
        return cls(name, __version__, default_backend(), free, copy_speed(), hello, wrong)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of all questions."""

    hosts: list[Host]
    round_trip_s: float
    """Of a small message around all ranks."""
    bandwidths: list[float]
    """Bytes a second to each rank from the one before it."""

    @property
    def problems(self) -> list[str]:
        """What would stop a model from being shared: each names its host, and what to do."""
        first, *others = self.hosts
        found = [f"{host.name}: {host.wrong}" for host in self.hosts if host.wrong is not None]
        for other in others:
            if other.version != first.version:
                found.append(other_version(other.name, other.version, first.name, first.version))
            elif first.hello is not None and other.hello is not None:
                found += _unlike(Hello(**first.hello), Hello(**other.hello))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "problems": self.problems}


def _unlike(first: Hello, other: Hello) -> list[str]:
    try:
        require_alike([first, other])
    except RankError as error:
        return [str(error)]
    return []


def probe(link: Link, model: str | None, resolve: Resolve) -> Found:
    """On the first rank: ask all of them.

    Raises:
        RankError: one has failed.
    """
    own = asdict(Host.of(link.name(0), model, resolve))
    link.send(Message(Kind.FACTS, {"model": model, "found": [own]}))
    hosts = [Host(**each) for each in link.receive(Kind.FACTS).body["found"]]
    times = [_round(link) for _ in range(_ROUNDS)]
    link.send(Message(Kind.LOAD, {"found": []}, np.ones(_LOAD_ROWS, np.float32)))
    load = link.receive(Kind.LOAD)
    speeds = [_speed(load), *load.body["found"]]
    return Found(hosts, statistics.median(times), speeds)


def _round(link: Link) -> float:
    started = time.perf_counter()
    link.send(Message(Kind.ECHO))
    link.receive(Kind.ECHO)
    return time.perf_counter() - started


def _speed(load: Message) -> float:
    return load.row_bytes / max(load.took_s, 1e-9)


def answer(link: Link, resolve: Resolve) -> None:
    """On any other rank: answer until the first one ends.

    Raises:
        RankError: a rank has failed.
    """
    kinds = (Kind.FACTS, Kind.ECHO, Kind.LOAD, Kind.END)
    while (message := link.receive(*kinds)).kind is not Kind.END:
        if message.kind is Kind.FACTS:
            host = Host.of(link.name(link.rank), message.body["model"], resolve)
            message.body["found"].append(asdict(host))
        elif message.kind is Kind.LOAD:
            message.body["found"].append(_speed(message))
        link.send(message)
    link.flush()
