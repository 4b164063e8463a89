"""The first tokens with the right profile, with a wrong one, and cold, under a memory cap.

Each language's text, which the demo's recipe never saw, is cut in two: its profile is made of the
first part, and a passage of the second is the prompt. Every run is a process of its own in a
memory cgroup (needs root, on Linux) and starts from a cold page cache; the ways take turns. Nobody
else may have the model open. Medians over the runs; the last line is JSON.

    python scripts/bench/profiles.py --model demo.gguf --cap 500M --cap 700M --repeat 5

A long prompt reads most experts whatever was in memory: try --prompt 50, 100, 400.
``load_s`` is what opening takes, the reading of the profile included. ``ready_s`` is from the start
of loading to the last of so many tokens: what a person waits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import capped, heldout
from bench.capped import Run
from bench.profile_text import profile_text

LANGUAGES = ("it", "en", "code")
WRONG = {"it": "code", "en": "it", "code": "en"}
COUNTS = (16, 64)
"""Tokens after which times are taken."""
WAYS = ("cold", "right", "wrong")
_COLUMNS = (
    "load_s",
    "ttft_s",
    *(f"{what}_{n}" for n in COUNTS for what in ("ready_s", "stall_ms")),
)


def child(spec: Run) -> None:
    """Generate, and print what the first tokens took as one line of JSON."""
    started = time.perf_counter()
    from moestream import Engine
    from moestream.engine.options import SamplingParams
    from moestream.profiles.names import load_profile
    from moestream.streaming.options import StreamingOptions
    from moestream.tokenizer import Tokenizer

    profile = load_profile(spec["profile"]) if spec["profile"] else None
    options = StreamingOptions(io=spec["io"], policy=spec["policy"])
    settings = {"context_length": 2048, "threads": spec["threads"], "streaming": options}
    settings["profile"] = profile
    with Engine.open(spec["model"], budget=spec["budget"], **settings) as engine:
        loaded = time.perf_counter()
        tokens = Tokenizer.from_gguf(engine.file).encode(spec["prompt"])
        session = engine.session()
        report: Run = {"load_s": loaded - started}
        params = SamplingParams(temperature=0.8, seed=1)
        for count, _ in enumerate(session.generate(tokens, params, max_tokens=max(COUNTS)), 1):
            stats = engine.streaming.stats()
            if count == 1:
                report["ttft_s"] = session.stats.ttft_s
                report["prefill_stall_ms"] = 1e3 * stats.prefill.stall_s
            if count in COUNTS:
                report[f"ready_s_{count}"] = time.perf_counter() - started
                stall_s = stats.prefill.stall_s + stats.decode.stall_s
                report[f"stall_ms_{count}"] = 1e3 * stall_s
                report[f"hit_rate_{count}"] = stats.decode.hit_rate
        report["generated"] = count
        report["residency"] = engine.streaming.stats().to_dict()
        report["io"] = engine.streaming.choices.io
    print(json.dumps(report))


def one_run(args: argparse.Namespace, cap: str, prompt: str, profile: Path | None) -> Run:
    """One process under one cap."""
    cap_mib = capped.mebibytes(cap)
    spec = {
        "model": str(args.model),
        "budget": args.budget or capped.budget_under(cap_mib),
        "io": args.io,
        "policy": args.policy,
        "threads": args.threads,
        "prompt": prompt,
        "profile": str(profile) if profile else None,
    }
    return capped.run_reporting(
        capped.child_command(__file__, spec), cap_mib, args.model, args.timeout
    )


def measure(args: argparse.Namespace, cap: str, language: str, profiles: dict[str, Path]) -> Run:
    """All ways in turn, over and over, each time on another passage."""
    _, passages = heldout.parts(language, args.prompt)
    chosen = {"cold": None, "right": profiles[language], "wrong": profiles[WRONG[language]]}
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    for turn in range(args.repeat):
        for way in WAYS:
            runs[way].append(one_run(args, cap, passages[turn % len(passages)], chosen[way]))
    row: Run = {"cap": cap, "language": language}
    for way, done in runs.items():
        names = [*_COLUMNS, *(f"hit_rate_{n}" for n in COUNTS)]
        values = {name: [run[name] for run in done if name in run] for name in names}
        row[way] = {n: statistics.median(v) if v else None for n, v in values.items()}
        errors = [run["error"] for run in done if "error" in run]
        row[way] |= {"error": errors[0]} if errors else {}
        cells = [row[way][name] for name in _COLUMNS]
        told = " | ".join("        -" if cell is None else f"{cell:9.2f}" for cell in cells)
        print(f"{cap:>6} | {language:>8} | {way:>6} | {told}", flush=True)
    return row | {"runs": runs}


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = capped.arguments(__doc__, repeat=5)
    parser.add_argument("--cap", action="append", required=True, help="such as 500M")
    parser.add_argument("--budget", help="by default the cap / 1.1")
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="default: all")
    parser.add_argument("--prompt", type=int, default=100, help="characters of a prompt")
    parser.add_argument("--io", default="auto")
    parser.add_argument("--policy", default="decay")
    return parser.parse_args()


def main() -> None:
    """Make the profiles, then measure every cap and language."""
    args = parsed()
    languages = tuple(args.language or LANGUAGES)
    with tempfile.TemporaryDirectory() as folder:
        profiles = {}
        for language in {*languages, *(WRONG[language] for language in languages)}:
            profiles[language] = Path(folder) / f"{language}.json"
            part = (0, len(heldout.parts(language)[0]))
            profile_text(args.model, language, part, profiles[language])
        print(
            f"{'cap':>6} | {'prompt':>8} | {'way':>6} | {' | '.join(f'{c:>9}' for c in _COLUMNS)}"
        )
        with capped.caps_needed():
            rows = [measure(args, cap, one, profiles) for cap in args.cap for one in languages]
    print(json.dumps({"model": args.model.name, "repeat": args.repeat, "rows": rows}))


if __name__ == "__main__":
    capped.main_or_child(main, child)
