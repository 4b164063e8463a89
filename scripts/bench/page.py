"""What the page costs: decode speed with somebody looking at the experts, beside nobody.

python scripts/bench/page.py MODEL [--budget 600M] [--answers 7] [--tokens 1500]

One server. While an answer is written the stream of the experts is opened and closed, for a
second each: so short a time apart the machine is as busy with other work, and the context about as
long. Figures are medians, and the loss is that of the pairs of open and closed. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import suppress
from itertools import chain, cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.http_load import chat
from bench.serve import QUESTIONS, body, free_port, ours, server

_WINDOW_S = 1.0
_SETTLE_S = 0.2
"""At the start of a window, which does not count."""
_ORDER = (False, True, True, False)
"""Open or not, so that what grows slower all the time weighs on both alike."""


class Onlooker:
    """Reads the stream, as an open page does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.frames = self.n_bytes = 0

    async def look(self) -> None:
        """Read until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        head = f"GET /v1/moestream/residency HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n"
        writer.write(head.encode())
        try:
            async for line in reader:
                self.frames += line.startswith(b"event: frame")
                self.n_bytes += len(line)
        finally:
            writer.transport.abort()


async def windows(port: int, asked: dict[str, Any], onlooker: Onlooker) -> list[tuple[bool, float]]:
    """Tokens a second of one answer's windows, each with whether somebody looked on."""
    began = time.perf_counter()
    answering = asyncio.create_task(chat(port, asked))
    cuts: list[tuple[bool, float]] = []
    for is_open in chain((False,), cycle(_ORDER)):
        looking = asyncio.create_task(onlooker.look()) if is_open else None
        cuts.append((is_open, time.perf_counter() - began))
        await asyncio.wait((answering,), timeout=_WINDOW_S)
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        if answering.done():
            break
    times = answering.result().times
    return [
        (is_open, _rate([t for t in times if start + _SETTLE_S <= t < start + _WINDOW_S]))
        for is_open, start in cuts[:-1]
    ][1:]  # the first has the prompt in it


def _rate(times: list[float]) -> float:
    """Tokens a second; those that came at once with the first are not of this time."""
    first = sum(t < times[0] + 0.02 for t in times)
    return (len(times) - first) / (times[-1] - times[0])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All answers, after one that does not count."""
    port, pairs = free_port(), []
    flags = ["--budget", args.budget] if args.budget else []
    onlooker = Onlooker(port)
    with server(ours(args.model, port, *flags), port):
        for turn in range(args.answers + 1):
            asked = body(QUESTIONS[turn % len(QUESTIONS)], args.tokens)
            found = asyncio.run(windows(port, asked, onlooker))
            for one, other in zip(found[::2], found[1::2], strict=False):
                speed = dict((one, other))
                if turn:
                    pairs.append((speed[False], speed[True]))
                    print("closed {:.1f}, open {:.1f} tok/s".format(*pairs[-1]), flush=True)
    losses = [1 - opened / closed for closed, opened in pairs]
    return {
        "closed_tps": statistics.median(closed for closed, _ in pairs),
        "open_tps": statistics.median(opened for _, opened in pairs),
        "loss": statistics.median(losses),
        "quartiles": statistics.quantiles(losses, n=4)[::2],
        "pairs": len(pairs),
        "frames": onlooker.frames,
        "stream_bytes": onlooker.n_bytes,
    }


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--budget")
    parser.add_argument("--answers", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=1500)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
