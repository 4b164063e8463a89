"""The most memory that a run takes, beside the budget that it was given.

python scripts/bench/peak_memory.py MODEL --budget 450M,700M --io direct,madvise --prompt 16,8000

Each run is a process of its own: a prompt of random tokens, then some that are generated. The peak
is the kernel's (VmHWM of Linux): anonymous memory and what is mapped of files. The last line is
JSON.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages

MIB = 1 << 20


def run(spec: dict[str, Any]) -> None:
    """Generate as ``spec`` says, and print what it took."""
    import numpy as np

    from moestream import Engine, SamplingParams
    from moestream.streaming.options import StreamingOptions

    streaming = None if spec["io"] == "auto" else StreamingOptions(io=spec["io"])
    with Engine.open(
        spec["model"],
        backend=spec["backend"],
        context_length=spec["context"],
        budget=spec["budget"],
        streaming=streaming,
    ) as engine:
        words = np.random.default_rng(0).integers(0, engine.config.vocab_size, spec["prompt"])
        params = SamplingParams(temperature=0)
        made = list(engine.session().generate(words.tolist(), params, max_tokens=16))
        plan = engine.plan
        assert plan is not None
        io = "mapped" if engine.streaming is None else engine.streaming.choices.io
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # noqa: SIM115, PTH123
    told = {
        "io": io,
        "budget_bytes": plan.budget_bytes,
        "least_bytes": plan.least_bytes,
        "peak_bytes": int(peak.split()[1]) * 1024,
        "generated": len(made),
    }
    print(json.dumps(told))


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Run ``spec`` in a process of its own."""
    command = [sys.executable, "-P", __file__, "--run", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**spec, "asked_io": spec["io"], **told}


def main() -> None:
    """Measure every combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--budget", default="450M,700M,1000M,1600M")
    parser.add_argument("--io", default="auto,direct,pread,madvise")
    parser.add_argument("--prompt", default="16,2000,8000")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--backend", default="cpu")
    args = parser.parse_args()
    if args.run:
        run(json.loads(args.run))
        return
    rows = []
    for io, budget, prompt in itertools.product(
        args.io.split(","), args.budget.split(","), args.prompt.split(",")
    ):
        spec = {"model": args.model, "io": io, "budget": budget, "prompt": int(prompt)}
        row = measure({**spec, "backend": args.backend, "context": args.context})
        share = row["peak_bytes"] / row["budget_bytes"]
        told = f"{row['peak_bytes'] // MIB:6d} MiB {share:6.1%}"
        print(f"{io:8} {row['io']:8} {budget:>6} {prompt:>6} {told}", file=sys.stderr)
        rows.append(row)
    worst = max(row["peak_bytes"] / row["budget_bytes"] for row in rows)
    print(json.dumps({"worst": worst, "runs": rows}))


if __name__ == "__main__":
    main()
