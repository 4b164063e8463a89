"""A slow disk, and a memory limit lowered meanwhile: slower, but no other tokens and no kill."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.cgroups import Group, cgroup, disk_of

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.demo import demo_path
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.streaming.page_cache import drop_pages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not demo_path().exists(), reason=f"no demo model at {demo_path()}"),
]

PROMPT = [260, 2, 30]
THROTTLED = 50_000_000

_CHILD = """
import json, sys, time
from moestream.engine.engine import Engine
from moestream.streaming.options import StreamingOptions
from moestream.engine.options import SamplingParams
path, budget, io = sys.argv[1:]
options = StreamingOptions(io=io, prefetch=False)
with Engine.open(path, backend="cpu", context_length=4096, budget=budget, streaming=options) as e:
    session = e.session()
    made = session.generate([260, 2, 30], SamplingParams(temperature=0.0))
    for line in sys.stdin:  # how many tokens at least, and for how many seconds at least
        count, seconds = line.split()
        tokens, until = [], time.monotonic() + float(seconds)
        while len(tokens) < int(count) or time.monotonic() < until:
            tokens.append(next(made))
        print(json.dumps({"tokens": tokens, **session.residency.to_dict()}), flush=True)
"""


@contextmanager
def capped(controller: str) -> Iterator[Group]:
    """A cgroup, or a skipped test where none can be made."""
    with ExitStack() as stack:
        try:
            group = stack.enter_context(cgroup(controller))
        except OSError as error:
            pytest.skip(f"needs a cgroup for {controller}: {error}")
        yield group


class Child:
    """A process that decodes in a cgroup, on demand."""

    def __init__(self, group: Group, budget: str, io: str) -> None:
        command = [sys.executable, "-c", _CHILD, str(demo_path().resolve()), budget, io]
        self.process = subprocess.Popen(
            group.enter(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tokens: list[int] = []

    def decode(self, count: int, seconds: float = 0.0) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(count, seconds, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait(10)}"
        report = json.loads(line)
        self.tokens += report["tokens"]
        return report

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.process.communicate(timeout=20)  # its input closes, so it ends
        finally:
            self.process.kill()
            self.process.wait()
        assert kind is not None or self.process.returncode == 0


def expected(count: int) -> list[int]:
    with Engine.open(demo_path(), backend="cpu", context_length=4096) as engine:
        made = engine.session().generate(PROMPT, SamplingParams(temperature=0.0), max_tokens=count)
        return list(made)


@pytest.mark.parametrize("io", ["direct", "madvise"])
def test_a_slow_disk_makes_it_slow_and_nothing_else(io):
    path = demo_path().resolve()
    try:
        disk = disk_of(path)
    except OSError as error:
        pytest.skip(str(error))
    with capped("io") as group:
        try:
            group.limit_reads(disk, THROTTLED)
        except OSError as error:
            pytest.skip(f"reads of {disk} cannot be limited: {error}")
        drop_pages([path])
        with Child(group, "300M", io) as child:
            report = child.decode(4)
    assert child.tokens == expected(4)
    if io == "direct":  # some of the pages may have been another's, and in memory
        assert report["bandwidth"] < 1.3 * THROTTLED


def anonymous_bytes(group: Group) -> int:
    name = "rss" if group.is_v1 else "anon"
    lines = (group.folder / "memory.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == name)


def lower(group: Group) -> None:
    """Set the limit just above what cannot be reclaimed."""
    for room in (1.04, 1.06):
        try:
            return group.limit_memory(int(room * anonymous_bytes(group)) + (8 << 20))
        except OSError as error:  # version 1, where too little could be reclaimed
            if error.errno != errno.EBUSY:
                raise
    return None


def test_a_limit_lowered_while_it_runs_is_met_by_giving_back():
    with capped("memory") as group:
        group.limit_memory(1000 << 20)
        with Child(group, "640M", "direct") as child:
            report = child.decode(30)
            assert report["given_back_bytes"] == 0
            before = anonymous_bytes(group)
            for _ in range(3):
                lower(group)
                report = child.decode(2, seconds=1.5)
            after = anonymous_bytes(group)
    assert child.tokens == expected(len(child.tokens))
    assert report["given_back_bytes"] > 0
    assert after < 0.97 * before
