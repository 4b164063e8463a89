"""Make moestream/forecast/curves.json: hit rates by the share of experts in memory.

Two sources: the public traces in tests/data/traces, and the demo model, whose routing is recorded
while it does what `moestream bench -p 0 -n 128 -r 7` has it do. Needs the demo model; about a
minute.

    python scripts/bench/hit_curves.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from moestream.bench import Tokens
from moestream.demo import demo_path
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.forecast.hits import HitCurve, curve_of_trace
from moestream.traces.recording import TraceRecorder

ROOT = Path(__file__).parents[2]
TRACES = {
    "qwen3-30b-a3b": "a public trace of Qwen3-30B-A3B (6 of 128 experts, 128 tokens)",
    "gemma-4-26b-a4b": "a public trace of Gemma-4-26B-A4B (6 of 128 experts, 128 tokens)",
}
TOKENS, RUNS = 128, 7


def demo_curve() -> HitCurve:
    """Record what a bench of the demo model asks for."""
    with tempfile.TemporaryDirectory() as folder, Engine.open(demo_path()) as engine:
        path = Path(folder) / "demo.route.csv.gz"
        tokens = Tokens(engine, "text")
        with TraceRecorder(path, engine) as recorder:
            for number in range(RUNS):
                session = engine.session()
                made = session.generate(
                    tokens.prompt(number, 1),
                    SamplingParams(seed=number),
                    max_tokens=TOKENS,
                    on_route=recorder.observer(session, number),
                )
                for _ in made:
                    pass
        name = f"the demo model (2 of 32 experts, {RUNS} texts of {TOKENS} tokens)"
        return curve_of_trace(path, name)


def main() -> None:
    """Write the file."""
    curves = [demo_curve()]
    curves += [
        curve_of_trace(ROOT / "tests" / "data" / "traces" / f"{name}.route.csv.gz", source)
        for name, source in TRACES.items()
    ]
    entries = [
        {
            "source": curve.source,
            "num_experts": curve.num_experts,
            "rates": [round(rate, 4) for rate in curve.rates],
        }
        for curve in curves
    ]
    path = ROOT / "moestream" / "forecast" / "curves.json"
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for entry in entries:
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
