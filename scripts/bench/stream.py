"""Decode speed under memory caps: each lever alone, alternating with llama.cpp on the same file.

Every run is a process of its own in a cgroup of its own (v1 or v2; needs root), the interpreter
included, and starts from a cold page cache. Nobody else may have the file open: pages in use
cannot be dropped. The last line is JSON.

    python scripts/bench/stream.py --model demo.gguf --cap 700M --llama-bench build/bin/llama-bench

llama-bench decodes random tokens, without a prompt. Where it and ``mapped`` thrash, under a cap,
they generate ``--peer-tokens`` instead of ``--tokens``.
Its bytes a token include what it reads to load. ``bound`` is what this disk and these kernels
would allow: 1 / max(time of a token with all in memory, bytes of a token / speed of the disk).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import (
    Run,
    arguments,
    budget_under,
    caps_needed,
    disk_speed,
    mebibytes,
    run_capped,
    run_reporting,
)
from bench.heldout import PROMPT_CHARACTERS
from bench.profile_text import profile_text

LANGUAGES = ("it", "en")

LEVERS: dict[str, Run] = {
    "mapped": {"streaming": None},
    "demand": {"io": "direct", "prefetch": False, "keep": False},
    "decay": {"io": "direct", "prefetch": False, "policy": "decay"},
    "blend": {"io": "direct", "prefetch": False, "policy": "blend"},
    "lru": {"io": "direct", "prefetch": False, "policy": "lru"},
    "decay+prefetch": {"io": "direct", "prefetch": True, "policy": "decay"},
    "blend+prefetch": {"io": "direct", "prefetch": True, "policy": "blend"},
    "lfu": {"io": "direct", "prefetch": False, "policy": "lfu"},
    "adaptive": {"io": "direct", "prefetch": False, "layer_budget": "adaptive"},
    "fate": {"io": "direct", "policy": "arc", "layer_budget": "shallow", "prefetch_mass": 1.0},
    "moepic": {"io": "direct", "policy": "lcp", "layer_budget": "adaptive", "split": "auto"},
    "moepic whole": {"io": "direct", "policy": "lcp", "layer_budget": "adaptive"},
    "moepic 0.75": {"io": "direct", "policy": "lcp", "layer_budget": "adaptive", "split": 0.75},
    "profile": {"io": "direct", "prefetch": False, "policy": "decay", "profile": True},
    "madvise": {"io": "madvise"},
    "pread": {"io": "pread"},
    "auto": {},
}
"""What is different from the defaults. ``demand`` keeps nothing: each token reads its experts.
``fate`` and ``moepic`` are what of those systems leaves the output exact; ``profile`` begins with
one of the same text's later part, which is neither the prompt nor what is generated."""
QUICK = ("decay", "blend", "blend+prefetch", "auto")
COLUMNS = {
    "tps": "tok/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "token_mib": "MiB/token",
    "hit_rate": "hit rate",
    "cached_rate": "cached",
    "stall_ms": "stall ms",
    "prompt_tps": "prompt/s",
    "peak_mib": "peak MiB",
    "bound_tps": "bound",
}


def ours(args: argparse.Namespace, cap_mib: int | None, lever: str, language: str) -> Run:
    """One run of moestream."""
    options = dict(LEVERS[lever])
    if "profile" in options:
        options["profile"] = str(args.profiles / f"{language}.json")
    spec = {
        "model": str(args.model),
        "budget": args.budget or (budget_under(cap_mib) if cap_mib else None),
        "options": options,
        "language": language,
        **{key: getattr(args, key) for key in ("tokens", "threads", "greedy")},
    }
    if lever == "mapped" and cap_mib is not None:
        spec["tokens"] = args.peer_tokens
    program = Path(__file__).with_name("stream_run.py")
    command = [sys.executable, str(program), json.dumps(spec)]
    return run_reporting(command, cap_mib, args.model, args.timeout)


def theirs(args: argparse.Namespace, cap_mib: int | None) -> Run:
    """One run of llama-bench, with repacking or without: whichever is faster."""
    runs = [llama_bench(args, cap_mib, repack) for repack in (True, False)]
    return max(runs, key=lambda run: run.get("tps", 0.0))


def llama_bench(args: argparse.Namespace, cap_mib: int | None, repack: bool) -> Run:
    """Decode alone. Repacked weights are a copy, which a cap may not have room for."""
    tokens = args.tokens if cap_mib is None else args.peer_tokens
    command = [str(args.llama_bench), "-m", str(args.model), "-p", "0", "-n", str(tokens)]
    command += ["-r", "1", "-t", str(args.threads), "--no-warmup", "-o", "json"]
    command += ["--repack", str(int(repack))]
    done = run_capped(command, cap_mib, args.model, args.timeout)
    done["repack"] = repack
    if "out" in done:
        done["tps"] = json.loads(done.pop("out"))[0]["avg_ts"]
        done["token_mib"] = done["disk_bytes"] / tokens / (1 << 20)
    return done


def summary(runs: list[Run], compute_s: float, disk: float) -> Run:
    """Medians of what the table shows, and the bound that follows from the bytes read."""
    row: Run = {}
    for key in COLUMNS:
        values = [run[key] for run in runs if key in run]
        row[key] = statistics.median(values) if values else None
    if row["token_mib"] is not None:
        row["bound_tps"] = 1 / max(compute_s, row["token_mib"] * (1 << 20) / disk)
    errors = [run["error"] for run in runs if "error" in run]
    return row | ({"error": errors[0]} if errors else {})


def table_row(cap: str, row: Run) -> str:
    """One line of the table."""
    if row["tps"] is None:
        return f"{cap:>8} | {row['lever']:>15} | {row['error']}"
    cells = ["-" if row[key] is None else f"{row[key]:.2f}" for key in COLUMNS]
    return f"{cap:>8} | {row['lever']:>15} | " + " | ".join(f"{cell:>9}" for cell in cells)


def measure_cap(args: argparse.Namespace, cap: str, compute_s: float) -> list[Run]:
    """All levers and llama.cpp in turn, over and over, under one cap."""
    cap_mib = None if cap == "none" else mebibytes(cap)
    runs: dict[str, list[Run]] = {lever: [] for lever in args.levers}
    if args.llama_bench:
        runs["llama.cpp"] = []
    for _ in range(args.repeat):
        for lever, done in runs.items():
            if lever == "llama.cpp":
                done.append(theirs(args, cap_mib))
            else:
                done += [ours(args, cap_mib, lever, language) for language in LANGUAGES]
    # What the disk gives depends on what its host has seen and granted: the best of all counts.
    reached = [
        run["residency"]["bandwidth"]
        for done in runs.values()
        for run in done
        if "residency" in run
    ]
    disk = max([disk_speed(args.model), *reached])
    print(f"disk {disk / 1e6:.0f} MB/s")
    rows = []
    for lever, done in runs.items():
        row = {"cap": cap, "lever": lever, **summary(done, compute_s, disk)}
        rows.append({**row, "disk_bytes_per_s": disk, "runs": done})
        print(table_row(cap, rows[-1]), flush=True)
    return rows


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments(__doc__, repeat=3)
    parser.add_argument("--cap", action="append", required=True, help="700M, 1.4G or none")
    parser.add_argument("--budget", help="by default the cap / 1.1")
    parser.add_argument("--levers", help=f"comma-separated, of: {', '.join(LEVERS)}")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, once")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--greedy", action="store_true", help="instead of sampled")
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's program of that name")
    parser.add_argument(
        "--peer-tokens", type=int, default=32, help="of llama-bench and of mapped, capped"
    )
    args = parser.parse_args()
    default = QUICK if args.quick else tuple(LEVERS)
    args.levers = args.levers.split(",") if args.levers else list(default)
    if unknown := set(args.levers) - set(LEVERS):
        parser.error(f"no lever is called {', '.join(unknown)}")
    if args.quick:
        args.repeat = 1
    return args


def main() -> None:
    """Measure what bounds us, then every cap."""
    args = parsed()
    with tempfile.TemporaryDirectory() as folder:
        args.profiles = Path(folder)
        if "profile" in args.levers:
            for language in LANGUAGES:
                part = (PROMPT_CHARACTERS, 1 << 20)
                profile_text(args.model, language, part, args.profiles / f"{language}.json")
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Run and print everything."""
    uncapped = ours(args, None, "mapped", LANGUAGES[0])
    compute_s = uncapped["p50_ms"] / 1e3
    print(f"a token with all in memory: {1e3 * compute_s:.1f} ms")
    if args.llama_bench:
        print(f"llama.cpp decodes {args.peer_tokens} tokens under a cap, we {args.tokens}")
    names = " | ".join(f"{name:>9}" for name in COLUMNS.values())
    print(f"{'cap':>8} | {'lever':>15} | {names}", flush=True)
    with caps_needed():
        rows = [row for cap in args.cap for row in measure_cap(args, cap, compute_s)]
    print(
        json.dumps(
            {
                "model": args.model.name,
                "resident": uncapped,
                "peer_tokens": args.peer_tokens,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
