"""How fast ``moestream simulate`` replays: a synthetic trace of Qwen3-30B-A3B's shape.

``python scripts/bench_simulate.py [--tokens 100000] [--file]``. Times the replay of every policy
named; with ``--file`` also what reading the trace from a compressed file takes. Last line: JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moestream.experts.simulate import PolicySpec, Simulator
from moestream.experts.trace import COLUMNS, DECODE, Trace, TraceHeader, read_trace
from moestream.experts.trace_writer import TraceWriter

LAYERS, EXPERTS, USED = 48, 128, 8
HEADER = TraceHeader(LAYERS, EXPERTS, USED, dict.fromkeys(range(LAYERS), 3 << 20), "synthetic")
T = TypeVar("T")


def routing(n_tokens: int, seed: int = 0) -> NDArray[np.int32]:
    """Expert ids (n_tokens, LAYERS, USED): popular experts, a drifting topic, and noise."""
    rng = np.random.default_rng(seed)
    popularity = rng.normal(size=(LAYERS, EXPERTS)).astype(np.float32)
    topic = np.zeros_like(popularity)
    ids = np.empty((n_tokens, LAYERS, USED), np.int32)
    for token in range(n_tokens):
        noise, drift = rng.standard_normal((2, LAYERS, EXPERTS), np.float32)
        topic = 0.95 * topic + 0.3 * drift
        logits = popularity + topic + 0.7 * noise
        ids[token] = np.argpartition(-logits, USED, axis=1)[:, :USED]
    return ids


def as_trace(ids: NDArray[np.int32]) -> Trace:
    """Make the rows that reading a file of this routing would give."""
    kinds = [(name, "<f4" if name == "weight" else "<i4") for name in COLUMNS]
    rows = np.zeros(ids.size, np.dtype(kinds))
    token, layer, slot = np.indices(ids.shape, np.int32)
    rows["phase"], rows["weight"], rows["residency"] = DECODE, 1 / USED, 1
    rows["step"], rows["layer"], rows["slot"] = token.ravel(), layer.ravel(), slot.ravel()
    rows["expert"] = ids.ravel()
    return Trace(Path("synthetic"), HEADER, rows)


def timed(what: str, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Run and say how long it took, by the clock and of one processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    times = {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }
    print(f"{what:24} {times['wall_s']:7.1f} s, {times['cpu_s']:.1f} s of processor", flush=True)
    return result, times


def read_back(ids: NDArray[np.int32]) -> dict[str, dict[str, float]]:
    """Time writing the routing to a file and reading it."""
    weights = np.full(USED, 1 / USED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.route.csv.gz"

        def write() -> None:
            with TraceWriter(path, HEADER) as writer:
                for step, layers in enumerate(ids):
                    for layer, experts in enumerate(layers):
                        writer.record(0, DECODE, step, layer, experts, weights)

        _, written = timed("write", write)
        _, read = timed("read", lambda: read_trace(path))
    return {"write": written, "read": read}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--policies", default="lru,decay")
    parser.add_argument("--budgets", default="10,25,50", help="in percent")
    parser.add_argument("--file", action="store_true", help="also write and read the trace")
    arguments = parser.parse_args()

    ids, _ = timed("make the routing", lambda: routing(arguments.tokens))
    result: dict[str, object] = {"tokens": arguments.tokens, "lookups": ids.size}
    if arguments.file:
        result |= read_back(ids)
    simulator, result["group"] = timed("group", lambda: Simulator(as_trace(ids)))
    replays = []
    for name in arguments.policies.split(","):
        for percent in map(float, arguments.budgets.split(",")):
            budget = int(HEADER.total_bytes * percent / 100)
            spec = PolicySpec(name)
            replay, times = timed(
                f"{spec.label} at {percent:g}%",
                lambda spec=spec, budget=budget: simulator.run(spec, budget),
            )
            replays.append(
                {"policy": name, "percent": percent, "hit_rate": round(replay.hit_rate, 4), **times}
            )
    print(json.dumps(result | {"replays": replays}))


if __name__ == "__main__":
    main()
