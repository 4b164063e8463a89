"""What a step of several sequences takes and reads, and how near that is to the memory's speed.

python scripts/bench/batches.py MODEL [--rows 1,2,4,8,16] [--repeat 30]

Each sequence has a context of its own, of ``--depth`` tokens, and continues a text of its own. The
bytes are those of the dense weights, of the union of the experts that were routed to, and of the
keys and values, each once. Times are the least of ``--repeat`` steps. The last line is JSON.

With ``--rows 1`` a step is decoding: ``MOESTREAM_ISA=avx2`` before it tells how near another
instruction set comes to the memory's speed, which is always measured with the best.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from moestream import _native
from moestream.backends import Array
from moestream.engine.engine import Engine
from moestream.layers.batch import Batch
from moestream.layers.cache import Cache
from moestream.layers.moe import RoutingEvent
from moestream.layers.weights import EMBEDDING, is_tied
from moestream.models.passes import Pass
from moestream.streaming.store import is_expert_weight, used_tensors


def run(engine: Engine, parts: list[tuple[Cache, list[int]]], **options: object) -> Array:
    """Run a pass of some sequences to its end; return the hidden states."""
    batch = Batch(engine.backend, [(cache, len(ids)) for cache, ids in parts], **options)
    rows = np.concatenate([ids for _, ids in parts]).astype(np.int32)
    under_way = Pass(engine.model, rows, [batch])
    while not under_way.advance():
        pass
    return under_way.hidden[0]


def dense_bytes(engine: Engine) -> int:
    """Bytes of weights that every step reads."""
    used = {info.name: info.n_bytes for info in used_tensors(engine.file)}
    if not is_tied(engine.file):
        del used[EMBEDDING]
    return sum(size for name, size in used.items() if not is_expert_weight(name))


def step(engine: Engine, caches: list[Cache], tokens: list[int]) -> tuple[float, int, list[int]]:
    """Seconds of a step, expert bytes of its union, and the likeliest next tokens."""
    events: list[RoutingEvent] = []
    parts = [(cache, [token]) for cache, token in zip(caches, tokens, strict=True)]
    started = time.perf_counter()
    hidden = run(engine, parts, on_route=events.append)
    logits = engine.model.logits(hidden)
    took = time.perf_counter() - started
    read = 0
    for event in events:
        tensors = engine.model.layers[event.layer].ffn.tensors
        one = sum(part.data[0].size for part in (tensors.gate, tensors.up, tensors.down))
        read += one * len(np.unique(event.expert_ids))
    return took, read, np.argmax(logits, axis=1).tolist()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", default="1,2,4,8,16")
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=30)
    args = parser.parse_args()
    bandwidth = _native.Context(_native.physical_cores(), None).read_bandwidth(1 << 29)
    rng, found = np.random.default_rng(0), []
    with Engine.open(args.model, context_length=1024) as engine:
        fixed = dense_bytes(engine)
        for rows in map(int, args.rows.split(",")):
            caches, tokens = [engine.caches.new() for _ in range(rows)], []
            for cache in caches:
                prompt = rng.integers(0, engine.config.vocab_size, args.depth).tolist()
                hidden = run(engine, [(cache, prompt)])
                tokens.append(int(np.argmax(engine.model.logits(hidden[-1:]))))
            steps = []
            for _ in range(args.repeat):
                took, read, tokens = step(engine, caches, tokens)
                kept = engine.kv_bytes(caches[0].length) * rows
                steps.append((took, (fixed + read + kept) / took, read))
            best = min(steps)
            found.append(
                {
                    "rows": rows,
                    "ms": round(best[0] * 1e3, 2),
                    "expert_mb": round(best[2] / 1e6, 1),
                    "dense_mb": round(fixed / 1e6, 1),
                    "of_bandwidth": round(best[1] / bandwidth, 2),
                }
            )
            found[-1]["times_one"] = round(found[-1]["ms"] / found[0]["ms"], 2)
            print(found[-1], flush=True)
        isa = engine.backend.isa
    told = {"model": args.model.name, "isa": isa, "read_gb_s": bandwidth / 1e9, "batches": found}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
