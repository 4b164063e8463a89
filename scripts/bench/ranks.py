"""What it costs to share a model among ranks: hops beside the link's own time, and tokens a second.

python scripts/bench/ranks.py MODEL [--ranks 1,2,3] [--links 0,0.1,0.5,2] [--gbit 0] [-p 512]
python scripts/bench/ranks.py MODEL --ranks 1,2 --cap 5G -p 0 -n 16   # each in so much memory

All ranks run here, on loopback. A link of so many milliseconds one way, or so many Gbit/s, is a
process between two ranks that holds bytes back: it stands for a network, and takes some processor
time of its own. ``hop`` is what a rank waits for rows besides what the others compute, for each
token; ``ideal`` is what the link alone would take for that. A cap takes root, on Linux; the peaks
are the system's, what is mapped of the file included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import budget_under, mebibytes
from bench.rank_processes import run_ranks

BENCH = ("-P", "-m", "moestream", "bench", "-o", "json")
NAMES = ("test", "avg_ts", "hop_ms", "away_ms", "hit_rate")


def main() -> None:
    """Measure each number of ranks at each link."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--ranks", default="1,2,3")
    parser.add_argument("--links", default="0,0.1,0.5,2", help="milliseconds one way")
    parser.add_argument("--gbit", type=float, default=0, help="of each link; 0 is no limit")
    parser.add_argument("--cap", help="memory of each rank, such as 5G")
    parser.add_argument("-p", default="512")
    parser.add_argument("-n", default="32")
    parser.add_argument("-r", default="3")
    parser.add_argument("-t", default="1", help="threads of each rank")
    parser.add_argument("--alone-t", default="", help="threads of one rank alone, if not as many")
    parser.add_argument("--tokens", default="text", help="random for a file without a tokenizer")
    args = parser.parse_args()
    cap = mebibytes(args.cap) if args.cap else 0
    command = [sys.executable, *BENCH, args.model, "--tokens", args.tokens, "-r", args.r]
    command += ["-p", args.p, "-n", args.n, "--budget", budget_under(cap) if cap else "none"]
    rows = []
    for ranks in map(int, args.ranks.split(",")):
        threads = args.alone_t or args.t if ranks == 1 else args.t
        for delay_ms in (0.0,) if ranks == 1 else map(float, args.links.split(",")):
            ended = run_ranks([*command, "-t", threads], ranks, delay_ms, args.gbit, cap)
            peaks = [round(each.peak_bytes / (1 << 20)) for each in ended]
            for row in json.loads(ended[0].out):
                named = {"ranks": ranks, "delay_ms": delay_ms, "gbit": args.gbit}
                rows.append(named | {n: row.get(n) for n in NAMES} | {"peak_mib": peaks})
                ideal = ranks * delay_ms if ranks > 1 else 0
                print(f"{rows[-1]}, ideal hop {ideal:.2f} ms", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
