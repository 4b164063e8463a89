"""Italian, then code, live and under a memory cap: speed, hits and bytes, window by window.

The engine is given real texts token by token, Italian and then Python code, so that all policies
route alike; the wait for reads is what differs. Every run is a process of its own in a memory
cgroup (needs root, on Linux) and starts from a cold page cache; the policies take turns. Medians
over the runs; the last line is JSON, which scripts/docs/policies.py takes as ``--shift``.

    python scripts/bench/shift.py --model demo.gguf --cap 500M --repeat 3 > shift.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import capped, heldout
from bench.capped import Run

DOMAINS = ("it", "code")
POLICIES = ("lru", "lfu", "lcp", "decay", "blend")
WINDOW = 32
_FIRST = 8
"""Tokens at once, to begin with: what they read is not measured."""
_COLUMNS = ("tps", "hit_rate", "token_mib")


def child(spec: Run) -> None:
    """Run the texts through the engine; print what each window took as one line of JSON."""
    from moestream import Engine
    from moestream.streaming.options import StreamingOptions
    from moestream.tokenizer import Tokenizer

    options = StreamingOptions(io="direct", prefetch=False, policy=spec["policy"])
    settings = {"context_length": 2048, "threads": spec["threads"], "streaming": options}
    with Engine.open(spec["model"], budget=spec["budget"], **settings) as engine:
        tokens = []
        for domain in DOMAINS:
            text = Tokenizer.from_gguf(engine.file).encode(heldout.text(domain))
            tokens += text[: spec["tokens"]]
        session = engine.session()
        session.forward(tokens[:_FIRST])
        windows = []
        for start in range(_FIRST, len(tokens), WINDOW):
            part = tokens[start : start + WINDOW]
            before, read = engine.streaming.stats().decode, capped.disk_bytes()
            started = time.perf_counter()
            for token in part:
                session.forward([token])
            elapsed_s = time.perf_counter() - started
            after = engine.streaming.stats().decode
            hits, misses = after.hits - before.hits, after.misses - before.misses
            windows.append({
                "tps": len(part) / elapsed_s,
                "hit_rate": hits / (hits + misses),
                "token_mib": (capped.disk_bytes() - read) / len(part) / (1 << 20),
            })  # fmt: skip
    print(json.dumps({"windows": windows}))


def one_run(args: argparse.Namespace, policy: str) -> Run:
    """One process under the cap."""
    cap_mib = capped.mebibytes(args.cap)
    spec = {"model": str(args.model), "budget": capped.budget_under(cap_mib), "policy": policy}
    spec |= {"tokens": args.tokens, "threads": args.threads}
    done = capped.run_reporting(
        capped.child_command(__file__, spec), cap_mib, args.model, args.timeout
    )
    if "error" in done:
        sys.exit(f"{policy}: {done['error']}")
    return done


def medians(runs: list[Run]) -> dict[str, list[float]]:
    """Of each figure, the median over the runs, by window."""
    by_window = list(zip(*(run["windows"] for run in runs), strict=True))
    return {
        name: [statistics.median(window[name] for window in windows) for windows in by_window]
        for name in _COLUMNS
    }


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = capped.arguments(__doc__, repeat=3)
    parser.add_argument("--cap", default="500M", help="such as 500M")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--tokens", type=int, default=264, help="of each text")
    return parser.parse_args()


def main() -> None:
    """Run all policies in turn, over and over."""
    args = parsed()
    runs: dict[str, list[Run]] = {policy: [] for policy in args.policies.split(",")}
    with capped.caps_needed():
        for _ in range(args.repeat):
            for policy, done in runs.items():
                done.append(one_run(args, policy))
    curves = {policy: medians(done) for policy, done in runs.items()}
    for policy, curve in curves.items():
        for name, values in curve.items():
            print(f"{policy:>8} | {name:>9} | {' '.join(f'{value:7.2f}' for value in values)}")
    told = {"cap": args.cap, "window": WINDOW, "repeat": args.repeat, "turn": args.tokens}
    print(json.dumps({"model": args.model.name, **told, "curves": curves}))


if __name__ == "__main__":
    capped.main_or_child(main, child)
