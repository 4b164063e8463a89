"""The first token of a long prompt that was read in an earlier run, beside reading it again.

python scripts/bench/prompt_cache.py MODEL [--tokens 10000] [--budget 700M]

Each run is a process of its own, and its stored blocks are dropped from the page cache before it
(of the model's file, only with --cold). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import Run, child_command, main_or_child, run_reporting
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.prompt_cache import PromptCache, folder_of_all
from moestream.streaming.page_cache import drop_pages


def child(spec: Run) -> None:
    """Read the prompt, from what is stored where there is anything, and say how long that took."""
    with (
        Engine.open(
            spec["model"], budget=spec["budget"], context_length=spec["tokens"] + 64
        ) as engine,
        PromptCache(engine, 1 << 40) as stored,
    ):
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, engine.config.vocab_size, spec["tokens"]).tolist()
        drop_pages(list(folder_of_all().glob("*/*.kv")))
        session, started = engine.session(), time.perf_counter()
        found = stored.restore(tokens, more_than=0)
        restored_s = time.perf_counter() - started
        restored = 0 if found is None else found.length
        if found is not None:
            session.adopt(tokens, found)
        for _ in session.prefill(tokens[len(session.tokens) :]):
            pass
        rest = tokens[len(session.tokens) :]
        params = SamplingParams(temperature=0)
        made = next(session.generate(rest, params, max_tokens=1))
        first_s = time.perf_counter() - started
        stored.save(session.tokens, session.cache)
    n_bytes = sum(path.stat().st_size for path in folder_of_all().glob("*/*.kv"))
    told: dict[str, Any] = {"first_s": first_s, "restored_s": restored_s, "token": made}
    print(json.dumps({**told, "restored": restored, "bytes": n_bytes}))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--budget")
    args = parser.parse_args()
    spec = {"model": str(args.model), "tokens": args.tokens, "budget": args.budget}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOESTREAM_CACHE"] = folder
        for _ in range(2):
            runs.append(run_reporting(child_command(__file__, spec), None, args.model, 600))
            print(runs[-1], flush=True)
    first, second = runs
    found = {
        "model": args.model.name,
        "tokens": args.tokens,
        "cold_s": first["first_s"],
        "stored_s": second["first_s"],
        "ratio": second["first_s"] / first["first_s"],
        "read_gb_s": second["bytes"] / second["restored_s"] / 1e9,
        "same": first["token"] == second["token"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main_or_child(main, child)
