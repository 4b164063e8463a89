"""What ranks do at the same time: a prompt's chunks, and a server's batch cut into one part a rank.

python scripts/bench/rank_batches.py MODEL [--ranks 1,2] [-t 1] [-p 4096] [-n 64] [--parallel 1,2,4]
    [--delay-ms 0]

``prompt_s`` is a prompt as it is read; ``in_turn_s`` the same, if nobody begins a chunk before the
one before it is through all ranks. ``parts_tps`` are tokens a second of all sequences where each
rank has a part of them, ``whole_tps`` where all go around as one batch. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.rank_processes import run_ranks
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.layers.batch import CHUNK_TOKENS
from moestream.ranks.attending import attend
from moestream.ranks.joining import end_process, joined, open_shared
from moestream.server.jobs import Job
from moestream.server.scheduler import Scheduler
from moestream.server.sequence import State

PROMPT_TOKENS = 16
WARM_UP = 4
GREEDY = SamplingParams(temperature=0.0)


def read(engine: Engine, tokens: list[int], at_once: int) -> float:
    """Seconds of a prompt, of which so many tokens are asked for at once."""
    session, started = engine.session(), time.perf_counter()
    for start in range(0, len(tokens), at_once):
        next(session.generate(tokens[start : start + at_once], GREEDY, max_tokens=1))
    return time.perf_counter() - started


def write(engine: Engine, parallel: int, tokens: int) -> float:
    """Tokens a second of so many sequences of a server."""
    random = np.random.default_rng(0)
    words = random.integers(0, engine.config.vocab_size, (parallel, PROMPT_TOKENS)).tolist()
    with Scheduler(engine, threaded=False, parallel=parallel) as scheduler:
        for prompt in words:
            job = Job(prompt=prompt, sampling=GREEDY, max_tokens=tokens + 4 * WARM_UP)
            scheduler.submit(job, lambda events: None)
        while not scheduler.status()[0] or _reads(scheduler):
            scheduler.step()
        for _ in range(WARM_UP):
            scheduler.step()
        begun, started = scheduler.totals.generated_tokens, time.perf_counter()
        while scheduler.totals.generated_tokens < begun + parallel * tokens:
            scheduler.step()
        made = scheduler.totals.generated_tokens - begun
        return made / (time.perf_counter() - started)


def _reads(scheduler: Scheduler) -> bool:
    return any(sequence.state is not State.WRITING for sequence in scheduler.status()[0])


def measure(engine: Engine, spec: dict[str, Any]) -> dict[str, Any]:
    """All figures of one engine, whole or shared."""
    random, machines = np.random.default_rng(1), engine.machines
    tokens = random.integers(0, engine.config.vocab_size, spec["prompt"]).tolist()
    read(engine, tokens[:CHUNK_TOKENS], CHUNK_TOKENS)
    found: dict[str, Any] = {"ranks": machines}
    if spec["prompt"]:
        found["prompt_s"] = round(read(engine, tokens, len(tokens)), 3)
        found["in_turn_s"] = round(read(engine, tokens, CHUNK_TOKENS), 3)
    for parallel in spec["parallel"]:
        row = {"parts_tps": round(write(engine, parallel, spec["tokens"]), 1)}
        if machines > 1:
            engine.machines = 1
            row["whole_tps"] = round(write(engine, parallel, spec["tokens"]), 1)
            engine.machines = machines
        found[str(parallel)] = row
    return found


def child(spec: dict[str, Any]) -> None:
    """One rank."""
    path, link = Path(spec["model"]), joined() if "MLX_RANK" in os.environ else None
    options = {"backend": "cpu", "threads": spec["threads"], "context_length": 16384}
    if link is None:
        with Engine.open(path, **options) as engine:
            print(json.dumps(measure(engine, spec)))
    elif link.rank:
        attend(link, options, Path)
    else:
        with open_shared(link, str(path), path, options) as engine:
            print(json.dumps(measure(engine, spec)))


def main() -> None:
    """Measure each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("-t", type=int, default=1, help="threads of each rank")
    parser.add_argument("-p", type=int, default=4096)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--parallel", default="1,2,4,8")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child))
        end_process(0)
        return
    parallel = [int(each) for each in args.parallel.split(",") if each]
    spec = {"model": args.model, "threads": args.t, "prompt": args.p, "tokens": args.n}
    command = [sys.executable, "-P", __file__, "--child", json.dumps(spec | {"parallel": parallel})]
    rows = []
    for ranks in map(int, args.ranks.split(",")):
        rows.append(json.loads(run_ranks(command, ranks, args.delay_ms)[0].out.splitlines()[-1]))
        print(rows[-1], flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
