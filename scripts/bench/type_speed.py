"""One model's pp512 and tg64 beside both peers, in as little time as honest medians take.

A peer's llama-bench does both works in one process, so that it loads the model once. All its flags
are tried in the first round, and only those that were best go on, into the others: programs still
take turns in each. With --isa, decoding alone, by us alone. The last line is JSON; a peer that
cannot run the model is left out, and says why on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from moestream import _native
from moestream.engine.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.peer import Peer, Work, measure_ours, peers, prefill, summary

PROMPT, DECODE = Work("pp512", 512), Work("tg64", 64)
Times = dict[str, dict[str, dict[str, list[float]]]]
"""Tokens a second: by peer, work, flags."""


def once(peer: Peer, flags: str, model: Path, threads: int) -> dict[str, float]:
    """Both works in one process; nothing if the peer cannot run the model."""
    command = [str(peer.program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    command += ["-p", str(PROMPT.tokens), "-n", str(DECODE.tokens), *peer.flags[flags]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        print(f"{peer.name}: {lines[0] if lines else done.returncode}", file=sys.stderr)
        return {}
    return {
        (PROMPT if run["n_prompt"] else DECODE).name: float(run["avg_ts"])
        for run in json.loads(done.stdout)
    }


def run_peer(peer: Peer, flags: list[str], model: Path, threads: int, times: Times) -> None:
    """Add a round of the peer with each of these flags."""
    for name in flags:
        for work, tps in once(peer, name, model, threads).items():
            times.setdefault(peer.name, {}).setdefault(work, {}).setdefault(name, []).append(tps)


def fastest_flags(runs: dict[str, dict[str, list[float]]]) -> list[str]:
    """Those that were fastest at one of the works."""
    return sorted({max(by_flags, key=lambda name: by_flags[name]) for by_flags in runs.values()})


def keep_whole(runs: dict[str, list[float]], repeats: int) -> dict[str, list[float]]:
    """Those of the flags that went through all rounds."""
    return {flags: times for flags, times in runs.items() if len(times) == repeats}


def compare(model: Path, args: argparse.Namespace) -> dict[str, object]:
    """Take turns; the summary of each work."""
    works = [DECODE] if args.isa else [PROMPT, DECODE]
    ours: dict[str, list[float]] = {work.name: [] for work in works}
    times: Times = {}
    with Engine.open(model, threads=args.threads, context_length=PROMPT.tokens + 1) as engine:
        tokens = np.random.default_rng(0).integers(0, engine.config.vocab_size, 512).tolist()
        session = engine.session()
        prefill(session, tokens[:8])
        for turn in range(args.repeats):
            for work in works:
                ours[work.name].append(measure_ours(session, work, tokens))
            for peer in peers(args):
                runs = times.get(peer.name, {})
                flags = fastest_flags(runs) if turn else list(peer.flags)
                run_peer(peer, flags, model, args.threads, times)
    return {
        name: summary(
            mine,
            {
                peer: whole
                for peer, runs in times.items()
                if (whole := keep_whole(runs[name], args.repeats))
            },
            "tps",
            max,
        )
        for name, mine in ours.items()
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--ik", type=Path, help="ik_llama.cpp's llama-bench")
    parser.add_argument("--isa", help="decode with this instruction set, without peers")
    parser.add_argument("--threads", type=int, default=_native.physical_cores())
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.isa:
        os.environ["MOESTREAM_ISA"] = args.isa  # which the engine reads
    context = _native.Context(args.threads, os.environ.get("MOESTREAM_ISA"))
    bandwidth = context.read_bandwidth(1 << 29)
    results = compare(args.model, args)
    found = {"isa": context.isa, "read_gb_s": round(bandwidth / 1e9, 1), "results": results}
    print(json.dumps({**found, "repeats": args.repeats, "threads": args.threads}))


if __name__ == "__main__":
    main()
