"""Compare moestream with llama.cpp on real text: KL divergence and perplexity of a model.

    pip install llama-cpp-python==0.3.36
    python scripts/oracle/compare.py demo tests/data/heldout/*.txt --backend reference --backend cpu
    python scripts/oracle/compare.py model.gguf book.txt --tokens 4096 --noise
    python scripts/oracle/compare.py demo tests/data/heldout/*.txt --f32 --save oracle.npz

All programs run on the same token ids, in windows that each start from an empty context. The ids
are moestream's, and llama.cpp's tokeniser has to give the same. KL(llama.cpp || other) is over the
whole vocabulary in float64, at every position.

llama.cpp rounds activations to 8 bits before it multiplies them with quantised weights, and a deep
model amplifies what that loses: `--noise` shows how far llama.cpp is from itself, when only the
order of additions or the KV cache's type differs. `--f32` therefore takes as oracle llama.cpp on
the same weights written as F32, where it rounds nothing. That copy needs four bytes a weight on
disk (in the folder of temporary files, TMPDIR) and, to be quick, in memory.

The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestream.catalog import resolve
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from oracle.file import OracleWriter
from oracle.libllama import KV_TYPES, LlamaCpp, version, write_f32_copy
from oracle.logit_stats import Comparison

AS_IS = "llama.cpp, weights as they are"

Run = Callable[[list[int]], NDArray[np.float32]]  # token ids (T,) -> logits (T, V)


def main() -> None:
    """Compare, print a table and the JSON line, and write the oracle file if asked to."""
    args = _arguments()
    model = resolve(args.model)
    with ExitStack() as stack:
        load = partial(_load, stack, args)
        oracle = load(_f32_copy(stack, model) if args.f32 else model)
        windows = _windows(args, model, oracle)
        others = _engines(stack, model, args)
        if args.f32:
            others[AS_IS] = load(model).logits
        if args.noise:
            others |= {
                "llama.cpp, token by token": partial(load(model).logits, chunk=1),
                "llama.cpp, F16 KV cache": load(model, kv_type="f16").logits,
                "llama.cpp, repacked weights": load(model, repack=True).logits,
            }
        writer = OracleWriter(model, version()) if args.save else None
        comparisons = _compare(windows, oracle.logits, others, writer)
    if writer:
        writer.save(args.save)
    _report(model, args, comparisons)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a name from models.toml, or a .gguf file")
    parser.add_argument("texts", metavar="TEXT", nargs="+", type=Path, help="UTF-8 text files")
    parser.add_argument("--tokens", type=int, default=2560, help="tokens in all (%(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens a window (%(default)s)")
    parser.add_argument("--backend", action="append", help="of moestream; may be given repeatedly")
    parser.add_argument(
        "--kv-type", choices=KV_TYPES, default="f32", help="both programs' KV cache"
    )
    parser.add_argument("--threads", type=int, default=2, help="for llama.cpp (%(default)s)")
    parser.add_argument("--noise", action="store_true", help="llama.cpp against itself as well")
    parser.add_argument("--f32", action="store_true", help="oracle: llama.cpp on F32 weights")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write an oracle file (.npz); needs --f32"
    )
    args = parser.parse_args()
    if args.save and not args.f32:
        parser.error("--save needs --f32: an oracle file holds the logits of F32 weights")
    return args


def _load(
    stack: ExitStack, args: argparse.Namespace, path: Path, kv_type: str = "", repack: bool = False
) -> LlamaCpp:
    """Open a file in llama.cpp until the stack closes."""
    return stack.enter_context(
        LlamaCpp(
            path,
            n_ctx=args.window,
            kv_type=kv_type or args.kv_type,
            threads=args.threads,
            repack=repack,
        )
    )


def _f32_copy(stack: ExitStack, model: Path) -> Path:
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "f32.gguf"
    write_f32_copy(model, copy)
    return copy


def _engines(stack: ExitStack, model: Path, args: argparse.Namespace) -> dict[str, Run]:
    """Open the model on every backend that was asked for."""
    runs: dict[str, Run] = {}
    for backend in args.backend or ["auto"]:
        engine = stack.enter_context(
            Engine.open(
                model,
                backend=backend,
                cache_type_k=args.kv_type,
                cache_type_v=args.kv_type,
                context_length=args.window,
            )
        )
        runs[f"moestream, {engine.backend.name}"] = partial(_forward, engine)
    return runs


def _forward(engine: Engine, ids: list[int]) -> NDArray[np.float32]:
    return engine.session().forward(ids)


def _windows(args: argparse.Namespace, model: Path, oracle: LlamaCpp) -> list[list[int]]:
    """Return windows of token ids, taken from the texts in turn; none crosses two texts.

    Raises:
        SystemExit: when the tokenisers differ, or the texts are too short.
    """
    with GGUFFile.open(model) as file:
        tokenizer = Tokenizer.from_gguf(file)
    first = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    length = args.window - len(first)
    per_text: list[list[list[int]]] = []
    for path in args.texts:
        text = path.read_text(encoding="utf-8")
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        if ids != oracle.tokenize(text, add_special=False, parse_special=False):
            sys.exit(f"{path}: llama.cpp's tokeniser gives other ids than moestream's")
        starts = range(0, len(ids) - length + 1, length)
        per_text.append([first + ids[start : start + length] for start in starts])
    turns = max(map(len, per_text))
    windows = [text[turn] for turn in range(turns) for text in per_text if turn < len(text)]
    wanted = -(-args.tokens // args.window)
    if len(windows) < wanted:
        sys.exit(f"the texts fill {len(windows)} windows of {args.window} tokens, not {wanted}")
    return windows[:wanted]


def _compare(
    windows: Sequence[list[int]], oracle: Run, others: dict[str, Run], writer: OracleWriter | None
) -> dict[str, Comparison]:
    """Run every window through all programs and compare each with `oracle`."""
    parts: dict[str, list[Comparison]] = {label: [] for label in others}
    for number, ids in enumerate(windows, 1):
        print(f"\rwindow {number} of {len(windows)}", end="", file=sys.stderr, flush=True)
        logits = oracle(ids)
        outputs = {label: run(ids) for label, run in others.items()}
        for label, output in outputs.items():
            parts[label].append(Comparison.of(ids, logits, output))
        if writer:
            writer.add(ids, logits, outputs[AS_IS])
    print(file=sys.stderr)
    return {label: Comparison.join(comparisons) for label, comparisons in parts.items()}


def _report(model: Path, args: argparse.Namespace, comparisons: dict[str, Comparison]) -> None:
    results = {label: comparison.summary() for label, comparison in comparisons.items()}
    first = next(iter(results.values()))
    weights = "weights written as F32" if args.f32 else "weights as they are"
    print(f"llama.cpp {version()}, {weights}")
    print(f"{model.name}: {first['positions']} positions, {args.kv_type} KV cache")
    print(f"perplexity of llama.cpp {first['perplexity_p']:.4f}\n")
    print("| against | KL mean | median | p99 | max | same top-1 | perplexity | change |")
    print("|---|---|---|---|---|---|---|---|")
    for label, row in results.items():
        kl = " | ".join(f"{row[f'kl_{name}']:.2e}" for name in ("mean", "median", "p99", "max"))
        print(
            f"| {label} | {kl} | {row['top1_agreement']:.2%} | {row['perplexity_q']:.4f} "
            f"| {row['perplexity_change']:+.3%} |"
        )
    settings = {
        "model": model.name,
        "llama_cpp": version(),
        "oracle_weights": "f32" if args.f32 else "as they are",
        "kv_type": args.kv_type,
        "window": args.window,
    }
    print(json.dumps({**settings, "results": results}))


if __name__ == "__main__":
    main()
