"""What it costs to share a model among ranks: hops beside the link's own time, and tokens a second.

python scripts/bench/ranks.py MODEL [--ranks 2,3] [--links 0,0.1,0.5,2] [--gbit 0] [-p 512] [-n 32]

All ranks run here, on loopback. A link of so many milliseconds one way, or so many Gbit/s, is a
process between two ranks that holds bytes back: it stands for a network, and takes some processor
time of its own. ``hop`` is what a rank waits for rows besides what the others compute, for each
token; ``ideal`` is what the link alone would take for that. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from slow_link import free_port, slow_link

BENCH = ("-m", "moestream", "bench", "-o", "json", "-r", "3", "--budget", "none")


@contextmanager
def environments(ranks: int, delay_ms: float, gbit: float) -> Iterator[list[dict[str, str]]]:
    """What tells each rank where the others are: the next one, at the near end of a slow link."""
    ports = [free_port() for _ in range(ranks)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = []
        for rank in range(ranks):
            following = (rank + 1) % ranks
            addresses = list(ports)
            if delay_ms or gbit:
                link = slow_link(ports[following], delay_ms / 1e3, gbit * 1e9 / 8)
                addresses[following] = stack.enter_context(link)
            path = folder / f"{rank}.json"
            path.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in addresses]))
            found.append(os.environ | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(path)})
        yield found


def bench(model: str, more: list[str], ranks: int, delay_ms: float, gbit: float) -> list[dict]:
    """What the first rank measures; one rank is a process alone."""
    command = [sys.executable, *BENCH, model, *more]
    if ranks == 1:
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    with environments(ranks, delay_ms, gbit) as environments_of, ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=sys.stderr)
            )
            for each in environments_of
        ]
        out, _ = processes[0].communicate()
    return json.loads(out)


def main() -> None:
    """Measure one process, then each number of ranks at each link."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--ranks", default="2,3")
    parser.add_argument("--links", default="0,0.1,0.5,2", help="milliseconds one way")
    parser.add_argument("--gbit", type=float, default=0, help="of each link; 0 is no limit")
    parser.add_argument("-p", default="512")
    parser.add_argument("-n", default="32")
    parser.add_argument("-t", default="1", help="threads of each rank")
    parser.add_argument("--tokens", default="text", help="random for a file without a tokenizer")
    args = parser.parse_args()
    more = ["--tokens", args.tokens, "-p", args.p, "-n", args.n, "-t", args.t]
    rows = []
    for ranks in (1, *map(int, args.ranks.split(","))):
        for delay_ms in (0.0,) if ranks == 1 else map(float, args.links.split(",")):
            for row in bench(args.model, more, ranks, delay_ms, args.gbit):
                named = {"ranks": ranks, "delay_ms": delay_ms, "gbit": args.gbit}
                names = ("test", "avg_ts", "hop_ms", "away_ms")
                rows.append(named | {name: row[name] for name in names})
                ideal = ranks * delay_ms if ranks > 1 else 0
                print(f"{rows[-1]}, ideal hop {ideal:.2f} ms")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
