"""Make moestream/forecast/curves.json: hit rates by the share of experts in memory.

Two sources: the public traces in tests/data/traces, and the demo model, whose routing is recorded
while it continues prose that its recipe never saw, Italian and English in turn, sampled. (What it
writes of its own accord, without a prompt, repeats itself: 86 % found where prose has 74.) Needs
the demo model; about a minute.

    python scripts/bench/hit_curves.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from moestream.demo import demo_path
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.forecast.hits import HitCurve, curve_of_trace
from moestream.tokenizer import Tokenizer
from moestream.traces.recording import TraceRecorder

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout

ROOT = Path(__file__).parents[2]
TRACES = {
    "qwen3-30b-a3b": "a public trace of Qwen3-30B-A3B (6 of 128 experts, 128 tokens)",
    "gemma-4-26b-a4b": "a public trace of Gemma-4-26B-A4B (6 of 128 experts, 128 tokens)",
}
LANGUAGES = ("it", "en")
TOKENS, EACH = 128, 3


def _prompts() -> list[str]:
    passages = [heldout.parts(language)[1][:EACH] for language in LANGUAGES]
    return [text for pair in zip(*passages, strict=True) for text in pair]


def demo_curve() -> HitCurve:
    """Record what continuing prose asks for."""
    with tempfile.TemporaryDirectory() as folder, Engine.open(demo_path()) as engine:
        path = Path(folder) / "demo.route.csv.gz"
        tokenizer = Tokenizer.from_gguf(engine.file)
        with TraceRecorder(path, engine) as recorder:
            for number, text in enumerate(_prompts()):
                session = engine.session()
                made = session.generate(
                    tokenizer.encode(text),
                    SamplingParams(temperature=0.8, seed=number),
                    max_tokens=TOKENS,
                    on_route=recorder.observer(session, number),
                )
                for _ in made:
                    pass
        name = f"the demo model (2 of 32 experts, {2 * EACH} texts of {TOKENS} tokens)"
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
