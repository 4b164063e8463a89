"""One measured generation: the process that stream.py starts under a cap.

Its one argument is JSON: see ``ours`` there.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from moestream import Engine
from moestream.engine.options import SamplingParams
from moestream.profiles.names import load_profile
from moestream.streaming.memory import keep_from_collector
from moestream.streaming.options import StreamingOptions
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from bench.capped import disk_bytes
from bench.wait_causes import CAUSES, WaitCauses, read_alone_s


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Generate as ``spec`` says, and tell what it took."""
    options = dict(spec["options"])
    streamed = options.pop("streaming", True) and spec["budget"] is not None
    keep = options.pop("keep", True)
    name = options.pop("profile", None)
    profile = None if name is None else load_profile(name)
    with Engine.open(spec["model"], context_length=2048, threads=spec["threads"]) as engine:
        if streamed:
            plan = engine.plan_memory(spec["budget"])
            if not keep:  # room for what two layers ask for, of which none may be kept
                plan = replace(plan, experts_bytes=2 * plan.floor_bytes // engine.config.num_layers)
            engine.stream(plan, StreamingOptions(**options), profile)
        if spec.get("delay_s") and engine.streaming is not None:
            engine.streaming.residency.reader.inject(0, spec["delay_s"])
        causes = None
        if spec.get("causes") and engine.streaming is not None:
            residency = engine.streaming.residency
            alone_s = read_alone_s(engine, residency.reader.method) + spec.get("delay_s", 0.0)
            causes = WaitCauses(residency, alone_s)
        text = heldout.text(spec["language"])[: heldout.PROMPT_CHARACTERS]
        prompt = Tokenizer.from_gguf(engine.file).encode(text)
        params = SamplingParams(temperature=0.0 if spec["greedy"] else 0.8, seed=1)
        keep_from_collector()
        session = engine.session()
        made = session.generate(prompt, params, max_tokens=spec["tokens"])
        first = next(made)
        if causes is not None:
            causes.seconds = dict.fromkeys(CAUSES, 0.0)  # of decoding alone
        before = (disk_bytes(), _stall_s(session))
        times = [time.perf_counter()]
        tokens = [first]
        for token in made:
            times.append(time.perf_counter())
            tokens.append(token)
        steps = sorted(b - a for a, b in pairwise(times))
        report = {
            "tps": session.stats.generation_tps,
            "prompt_tps": session.stats.prompt_tps,
            "p50_ms": 1e3 * steps[len(steps) // 2],
            "p99_ms": 1e3 * steps[int(len(steps) * 0.99)],
            "token_mib": (disk_bytes() - before[0]) / len(steps) / (1 << 20),
            "load_s": engine.load_s,
            "tokens": hashlib.sha1(repr(tokens).encode()).hexdigest(),
        }
        if session.residency is not None and engine.streaming is not None:
            stats = session.residency.to_dict()
            report["hit_rate"] = stats["decode"]["hit_rate"]
            report["cached_rate"] = stats["decode"]["cached_rate"]
            report["split"] = engine.streaming.choices.mean_split
            report["stall_ms"] = 1e3 * (_stall_s(session) - before[1]) / len(steps)
            if causes is not None:
                report["causes_ms"] = {
                    cause: 1e3 * seconds / len(steps) for cause, seconds in causes.seconds.items()
                }
            report |= {"io": engine.streaming.choices.io, "residency": stats}
    return report


def _stall_s(session: Any) -> float:
    stats = session.residency
    return 0.0 if stats is None else float(stats.decode.stall_s)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
