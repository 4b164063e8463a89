"""What the page costs: decode speed with somebody looking at the experts, beside nobody.

python scripts/bench/page.py MODEL [--budget 600M] [--repeat 7] [--tokens 512]

One server; in each round the same answer is timed with the stream of the experts closed and open,
in turn. Figures are medians, and the loss is that of the pairs. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.http_load import chat
from bench.serve import QUESTIONS, body, free_port, ours, server


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


async def timed(port: int, tokens: int, onlooker: Onlooker | None) -> float:
    """Tokens a second of one answer."""
    looking = None if onlooker is None else asyncio.create_task(onlooker.look())
    await asyncio.sleep(0.5)
    answer = await chat(port, body(QUESTIONS[0], tokens))
    if looking is not None:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    return answer.decode_tps


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rounds, after one that does not count; who is first changes from round to round."""
    port, pairs = free_port(), []
    flags = ["--budget", args.budget] if args.budget else []
    onlooker = Onlooker(port)
    with server(ours(args.model, port, *flags), port):
        for turn in range(args.repeat + 1):
            found = {}
            for is_open in (True, False) if turn % 2 else (False, True):
                found[is_open] = asyncio.run(
                    timed(port, args.tokens, onlooker if is_open else None)
                )
            pairs.append((found[False], found[True]))
            print(f"closed {found[False]:.1f}, open {found[True]:.1f} tok/s")
    pairs = pairs[1:]
    return {
        "closed_tps": statistics.median(closed for closed, _ in pairs),
        "open_tps": statistics.median(opened for _, opened in pairs),
        "loss": statistics.median(1 - opened / closed for closed, opened in pairs),
        "frames": onlooker.frames,
        "stream_bytes": onlooker.n_bytes,
    }


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--budget")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=512)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
