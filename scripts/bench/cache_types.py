"""What each type of keys and values costs: bytes, divergence from F32's, and speed.

python scripts/bench/cache_types.py MODEL [--tokens 2048]

The divergence is of held-out prose, the mean over all positions of KL(f32 || type) in nats; beside
it, how often the likeliest token is the same. Speeds are of that prompt and of decoding after it,
medians of ``--repeat``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from moestream.choices import KVType
from moestream.engine.engine import Engine
from moestream.tokenizer import Tokenizer
from oracle.logit_stats import blocks, kl_divergence, log_softmax

DECODED = 32
PAIRS: tuple[tuple[KVType, KVType], ...] = (
    ("f16", "f16"),
    ("q8_0", "q8_0"),
    ("q8_0", "q4_0"),
    ("q4_0", "q4_0"),
)
"""Of keys and of values."""


def run(keys: KVType, values: KVType, args: argparse.Namespace) -> tuple[NDArray[Any], list[Any]]:
    """The logits after each token of the text; bytes a token, and both speeds."""
    context = args.tokens + DECODED
    with Engine.open(
        args.model, cache_type_k=keys, cache_type_v=values, context_length=context
    ) as engine:
        text = heldout.text("en") + heldout.text("de")
        tokens = Tokenizer.from_gguf(engine.file).encode(text)[: args.tokens]
        prompts, decodes = [], []
        for _ in range(args.repeat):
            session, began = engine.session(), time.perf_counter()
            logits = session.forward(tokens)
            read = time.perf_counter()
            for token in tokens[:DECODED]:
                session.forward([token])
            prompts.append(len(tokens) / (read - began))
            decodes.append(DECODED / (time.perf_counter() - read))
        return logits, [
            engine.kv_bytes(256) // 256,
            round(statistics.median(prompts), 1),
            round(statistics.median(decodes), 1),
        ]


def apart(exact: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    """The mean divergence, and how often the likeliest token is the same."""
    kl = [
        kl_divergence(log_softmax(exact[rows]), log_softmax(other[rows]))
        for rows in blocks(len(exact))
    ]
    same = exact.argmax(axis=-1) == other.argmax(axis=-1)
    return float(np.concatenate(kl).mean()), float(same.mean())


def main() -> None:
    """Measure every type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    exact, _ = run("f32", "f32", args)
    found = {}
    for keys, values in PAIRS:
        logits, (n_bytes, prompt, decode) = run(keys, values, args)
        kl, same = apart(exact, logits)
        row = {"bytes_a_token": n_bytes, "kl": kl, "same_top": same}
        found[f"{keys}/{values}"] = {**row, "prompt_tps": prompt, "decode_tps": decode}
        print(f"{keys}/{values}: {json.dumps(found[f'{keys}/{values}'])}", flush=True)
    print(json.dumps({"model": args.model.name, "tokens": args.tokens, "types": found}))


if __name__ == "__main__":
    main()
