"""Speed beside llama.cpp's, and ik_llama.cpp's, on the same file in the same run.

Prefill and decode are measured in turn, moestream then the peers, over and over, so that what
else the machine does falls on all; figures are medians. Peers run with their repacking on and
off twice, and then with the faster of these. The memory's read bandwidth is measured by the
extension in the same run. The last line is JSON.

With llama-completion, the time from a process's start to its first token is measured as well.

llama-bench and llama-completion come with llama.cpp: build them with
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON
    cmake --build build -t llama-bench llama-completion
and run
    python scripts/bench/peer.py model.gguf --llama-bench build/bin/llama-bench
ik_llama.cpp is built by the same commands; --ik takes its llama-bench.
For machines with AVX2 alone, build both with GGML_NATIVE=OFF, GGML_AVX2, GGML_FMA and GGML_F16C ON,
and set MOESTREAM_ISA=avx2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from moestream import _native
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.session import Session

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM

_TRIED = 2
"""Rounds after which a peer keeps to its best flags."""
COMPLETION_FLAGS = {"repack": ["--repack"], "no repack": ["--no-repack"]}
PROMPT = "The capital of Italy is"


@dataclass(frozen=True, slots=True)
class Work:
    """What is measured: tokens of prompt, or of decoding after ``depth`` tokens of context."""

    name: str
    tokens: int
    depth: int = 0

    @property
    def is_prefill(self) -> bool:
        """Whether the tokens are given all at once."""
        return self.name.startswith("pp")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program's llama-bench, and the flags that matter to it: the fastest count."""

    name: str
    program: Path
    flags: dict[str, list[str]]
    has_depth: bool
    """Whether ``-d`` says after how many tokens is measured; else decoding has ``-gp``."""

    def tps(self, flags: str, model: Path, work: Work, threads: int) -> float:
        """Tokens a second of one repetition (it warms up by itself)."""
        command = [str(self.program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
        command += [*self._asked(work), *self.flags[flags]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return float(json.loads(done.stdout)[0]["avg_ts"])

    def _asked(self, work: Work) -> list[str]:
        if not self.has_depth and work.depth:
            return ["-p", "0", "-n", "0", "-gp", f"{work.depth},{work.tokens}"]
        prompt, generate = (work.tokens, 0) if work.is_prefill else (0, work.tokens)
        depth = ["-d", str(work.depth)] if self.has_depth else []
        return ["-p", str(prompt), "-n", str(generate), *depth]


def peers(args: argparse.Namespace) -> list[Peer]:
    """Those that the options name."""
    found = []
    if args.llama_bench:
        flags = {"repack": ["--repack", "1"], "no repack": ["--repack", "0"]}
        found.append(Peer("llama_cpp", args.llama_bench, flags, has_depth=True))
    if args.ik:
        flags = {"repack": ["-rtr", "1"], "no repack": ["-rtr", "0"]}
        found.append(Peer("ik_llama_cpp", args.ik, flags, has_depth=False))
    return found


def works(args: argparse.Namespace) -> list[Work]:
    """The measurements that the options ask for."""
    listed = [
        Work(f"pp{args.prompt}", args.prompt),
        Work(f"tg{args.generate}", args.generate),
        Work(f"tg{args.generate}@{args.depth}", args.generate, args.depth),
    ]
    return [work for work in listed if work.tokens and (work.depth or "@" not in work.name)]


def measure_ours(session: Session, work: Work, tokens: list[int]) -> float:
    """Tokens a second of one run; the context before it is made beforehand."""
    session.truncate(min(work.depth, len(session.tokens)))
    if missing := work.depth - len(session.tokens):
        prefill(session, tokens[:missing])
    started = time.perf_counter()
    if work.is_prefill:
        prefill(session, tokens[: work.tokens])
    else:
        for token in tokens[: work.tokens]:
            session.forward([token])
    return work.tokens / (time.perf_counter() - started)


def prefill(session: Session, tokens: list[int]) -> None:
    """Append a prompt and choose the token after it."""
    next(session.generate(tokens, SamplingParams(temperature=0.0)))


Runs = dict[str, Callable[[], float]]
"""A peer's measurements, by its flags."""
Found = dict[str, list[float]]
"""What they gave."""


def alternate(
    repeats: int, ours: Callable[[], float], peers: dict[str, Runs], best_of: Callable[..., str]
) -> tuple[list[float], dict[str, Found]]:
    """Measure us, then every peer, over and over: with all flags at first, then with the best."""
    mine: list[float] = []
    theirs: dict[str, Found] = {name: {flags: [] for flags in runs} for name, runs in peers.items()}
    for turn in range(repeats):
        mine.append(ours())
        for name, runs in peers.items():
            if turn == _TRIED:
                best = best_flags(theirs[name], best_of)
                theirs[name] = {best: theirs[name][best]}
            for flags, found in theirs[name].items():
                found.append(runs[flags]())
    return mine, theirs


def best_flags(found: Found, best_of: Callable[..., str]) -> str:
    """Those of the best median."""
    return best_of(found, key=lambda flags: statistics.median(found[flags]))


def seconds_to_first_byte(command: list[str]) -> float:
    """From the start of a process to its first output."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - started
        process.stdout.read()
    if process.returncode or not first:
        sys.exit(f"{' '.join(command)} failed with status {process.returncode}")
    return took


def compare_first_token(args: argparse.Namespace) -> dict[str, object]:
    """Alternate both programs, from a process's start to the first token of a short prompt."""
    shared = ["-m", str(args.model), "-p", PROMPT, "-n", "2", "--temp", "0"]
    shared += ["-t", str(args.threads)]
    ours = [*MOESTREAM, "generate", str(args.model), "--raw", *shared[2:]]
    peer = [str(args.llama_completion), *shared, "-no-cnv", "--no-display-prompt"]
    mine, theirs = alternate(
        args.repeats,
        lambda: seconds_to_first_byte(ours),
        {
            "llama_cpp": {
                name: partial(seconds_to_first_byte, [*peer, *flags])
                for name, flags in COMPLETION_FLAGS.items()
            }
        },
        min,
    )
    return summary(mine, theirs, "s", min)


@contextmanager
def real_time(wanted: bool) -> Iterator[None]:
    """Run all threads before everything else on the machine, where that is asked for."""
    if not wanted:
        yield
        return
    set_scheduler(os.SCHED_RR, 1)
    try:
        yield
    finally:
        set_scheduler(os.SCHED_OTHER, 0)


def set_scheduler(policy: int, priority: int) -> None:
    """Of every thread of this process; children inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def compare(args: argparse.Namespace) -> dict[str, object]:
    """Alternate both programs over all works."""
    rng = np.random.default_rng(0)
    context = max(args.prompt, args.depth + args.generate) + 1
    results: dict[str, object] = {}
    with Engine.open(args.model, threads=args.threads, context_length=context) as engine:
        tokens = rng.integers(0, engine.config.vocab_size, context).tolist()
        for work in works(args):
            session = engine.session()
            prefill(session, tokens[:8])
            runs = {
                peer.name: {
                    flags: partial(peer.tps, flags, args.model, work, args.threads)
                    for flags in peer.flags
                }
                for peer in peers(args)
            }
            with real_time(args.real_time):
                ours, theirs = alternate(
                    args.repeats, partial(measure_ours, session, work, tokens), runs, max
                )
            results[work.name] = summary(ours, theirs, "tps", max)
            print(f"{work.name:14s} {json.dumps(results[work.name])}", flush=True)
    return results


def summary(
    ours: list[float],
    theirs: dict[str, Found],
    unit: str,
    best_of: Callable[..., str],
) -> dict[str, object]:
    """Medians, spreads (largest over smallest) and the ratios to each peer's best flags."""
    mine = statistics.median(ours)
    found: dict[str, object] = {
        f"moestream_{unit}": round(mine, 3),
        "moestream_spread": round(max(ours) / min(ours), 3),
    }
    for name, runs in theirs.items():
        best = best_flags(runs, best_of)
        median = statistics.median(runs[best])
        found |= {
            f"{name}_{unit}": round(median, 3),
            f"{name}_flags": best,
            f"{name}_spread": round(max(runs[best]) / min(runs[best]), 3),
            f"{name}_ratio": round(mine / median, 3),
        }
    return found


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--ik", type=Path, help="ik_llama.cpp's llama-bench")
    parser.add_argument("--llama-completion", type=Path, help="measure the first token's time too")
    parser.add_argument("--threads", type=int, default=_native.physical_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prefill, 0 for none")
    parser.add_argument("--generate", type=int, default=128, help="tokens of decoding")
    parser.add_argument("--depth", type=int, default=0, help="decode also after so many tokens")
    parser.add_argument("--real-time", action="store_true", help="ahead of all else (root only)")
    args = parser.parse_args()
    context = _native.Context(args.threads)
    with real_time(args.real_time):
        bandwidth = context.read_bandwidth(1 << 29)
    results = compare(args)
    if args.llama_completion:
        results["first token"] = compare_first_token(args)
        print(f"{'first token':14s} {json.dumps(results['first token'])}", flush=True)
    print(
        json.dumps(
            {
                "model": args.model.name,
                "threads": args.threads,
                "isa": context.isa,
                "read_gb_s": round(bandwidth / 1e9, 1),
                "repeats": args.repeats,
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
