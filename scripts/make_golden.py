#!/usr/bin/env python3
"""Write the golden models and the logits that llama.cpp computes for them.

    pip install llama-cpp-python==0.3.36
    scripts/make_golden.py [FOLDER]          # default: tests/data/golden

The models are the same byte for byte at every run. Each is run with an F32 KV cache and no flash
attention, all tokens in one batch. `logits.npz` holds, for each model `name`:

    name    the logits of the file as it is;
    name/f32    only for quantised models: the logits of the same weights after llama.cpp wrote
            them as F32, that is, without its rounding of activations to 8 or 16 bits.

What is committed must be no accident of one order of summation: with F32 weights, the same tokens
one at a time have to give the same logits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import golden_models
import numpy as np
from golden_models import GoldenModel
from llama_cpp_oracle import LlamaCpp, version, write_f32_copy
from logit_stats import kl_divergence, log_softmax
from numpy.typing import NDArray

Logits = NDArray[np.float32]

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
SELF_KL = 1e-9  # of F32 weights, all tokens at once against one at a time


def golden_logits(model: GoldenModel, path: Path) -> dict[str, Logits]:
    """Return llama.cpp's logits (T, V) of one model, by their names in `logits.npz`."""
    if model.is_f32:
        return {model.name: _stable_logits(path)}
    with LlamaCpp(path, n_ctx=golden_models.CONTEXT) as oracle:
        rounded = oracle.logits(golden_models.tokens())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        write_f32_copy(path, copy)
        return {model.name: rounded, f"{model.name}/f32": _stable_logits(copy)}


def _stable_logits(path: Path) -> Logits:
    """Return the logits of an F32 file.

    Raises:
        SystemExit: when llama.cpp gives others token by token.
    """
    tokens = golden_models.tokens()
    with LlamaCpp(path, n_ctx=golden_models.CONTEXT) as oracle:
        batch, single = oracle.logits(tokens), oracle.logits(tokens, chunk=1)
    kl = kl_divergence(log_softmax(batch), log_softmax(single)).max()
    if kl > SELF_KL or (batch.argmax(axis=1) != single.argmax(axis=1)).any():
        sys.exit(f"{path.name}: token by token, llama.cpp differs from itself by a KL of {kl:.1e}")
    return batch


def _summary(model: GoldenModel, path: Path, logits: dict[str, Logits]) -> str:
    """Return a table row: whether the logits are sane, and what rounding activations costs."""
    exact = logits.get(f"{model.name}/f32", logits[model.name])
    log_p, log_q = log_softmax(exact), log_softmax(logits[model.name])
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    margin = np.diff(np.sort(exact, axis=1)[:, -2:], axis=1).min()
    kl = kl_divergence(log_q, log_p)
    return (
        f"| {model.name} | {model.arch} | {path.stat().st_size / 1e3:.0f} "
        f"| {entropy.min():.2f} to {entropy.max():.2f} | {margin:.4f} "
        f"| {'' if model.is_f32 else f'{kl.mean():.1e}, {kl.max():.1e}'} |"
    )


def main() -> None:
    """Write every model and `logits.npz`, and print the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"llama.cpp {version()}\n")
    print("| model | architecture | kB | entropy, nats | narrowest top-1 margin | rounding: KL |")
    print("|---|---|---|---|---|---|")
    arrays: dict[str, Logits] = {}
    for model in golden_models.MODELS:
        path = golden_models.write_model(model, folder)
        logits = golden_logits(model, path)
        print(_summary(model, path, logits))
        arrays |= logits
    np.savez_compressed(
        folder / "logits.npz",
        tokens=np.array(golden_models.tokens(), dtype=np.int32),
        llama_cpp=np.array(version()),
        **arrays,
    )
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(f"\n{folder}: {total / 1e6:.2f} MB in all")


if __name__ == "__main__":
    main()
