"""Write the golden models and the logits that llama.cpp computes for them.

    pip install llama-cpp-python==0.3.36
    python scripts/golden/make.py [NAME...]         # default: all

The models are the same byte for byte at every run. Each is run with an F32 KV cache and no flash
attention, where an architecture does without, all tokens in one batch. Beside `NAME.gguf`,
`NAME.npz` holds:

    tokens  the ids; llama_cpp the version;
    logits  those of the file as it is;
    f32     only for quantised models: the logits of the same weights after llama.cpp wrote them
            as F32, that is, without its rounding of activations to 8 or 16 bits;
    long    only for models of which some parts come late: every third of a longer text's.

What is committed must be no accident of one order of summation: with F32 weights, the same tokens
one at a time have to give the same logits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from golden.files import CONTEXT, Model, is_f32, tokens, write_model
from golden.models import MODELS, PARTLY
from oracle.libllama import LlamaCpp, version, write_f32_copy
from oracle.logit_stats import kl_divergence, log_softmax

Logits = NDArray[np.float32]

FOLDER = Path(__file__).parents[2] / "tests" / "data" / "golden"
# Of F32 weights, all tokens at once against one at a time. llama.cpp takes GELU from a table of
# half precision, where a last bit of difference in a sum can become one of 2^-11.
SELF_KL = 1e-9
GELU_SELF_KL = 1e-6
FLASH = ("minimax-m3",)
"""Models of which llama.cpp attends to all positions without its flash attention."""
GELU_ARCHITECTURES = ("gemma4", "grok")


def golden_logits(model: Model, path: Path) -> dict[str, Logits]:
    """Return llama.cpp's logits (T, V) of one model, by their names in its `.npz`."""
    if is_f32(model):
        return {"logits": _stable_logits(path, model)} | _long_logits(model, path)
    with _open(path, model) as oracle:
        rounded = oracle.logits(tokens())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        write_f32_copy(path, copy)
        return {"logits": rounded, "f32": _stable_logits(copy, model)}


def _long_logits(model: Model, path: Path) -> dict[str, Logits]:
    """Return those of a longer text, every third, of a model that needs one."""
    count = getattr(model, "long_tokens", 0)
    if not count:
        return {}
    with LlamaCpp(path, n_ctx=2 * count) as oracle:
        return {"long": oracle.logits(tokens(count))[::3]}


def _open(path: Path, model: Model) -> LlamaCpp:
    return LlamaCpp(path, n_ctx=CONTEXT, flash=model.name in FLASH)


def _stable_logits(path: Path, model: Model) -> Logits:
    """Return the logits of `model` in an F32 file.

    Raises:
        SystemExit: when llama.cpp gives others token by token.
    """
    with _open(path, model) as oracle:
        batch, single = oracle.logits(tokens()), oracle.logits(tokens(), chunk=1)
    kl = kl_divergence(log_softmax(batch), log_softmax(single)).max()
    most = GELU_SELF_KL if model.arch in GELU_ARCHITECTURES else SELF_KL
    if kl > most or (batch.argmax(axis=1) != single.argmax(axis=1)).any():
        sys.exit(f"{path.name}: token by token, llama.cpp differs from itself by a KL of {kl:.1e}")
    return batch


def _summary(model: Model, path: Path, logits: dict[str, Logits]) -> str:
    """Return a table row: whether the logits are sane, and what rounding activations costs."""
    exact = logits.get("f32", logits["logits"])
    log_p, log_q = log_softmax(exact), log_softmax(logits["logits"])
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    margin = np.diff(np.sort(exact, axis=1)[:, -2:], axis=1).min()
    kl = kl_divergence(log_q, log_p)
    return (
        f"| {model.name} | {model.arch} | {path.stat().st_size / 1e3:.0f} "
        f"| {entropy.min():.2f} to {entropy.max():.2f} | {margin:.4f} "
        f"| {'' if is_f32(model) else f'{kl.mean():.1e}, {kl.max():.1e}'} |"
    )


def main() -> None:
    """Write models and logits, and print the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; all by default")
    names: list[str] = parser.parse_args().names
    if unknown := set(names) - {model.name for model in (*MODELS, *PARTLY)}:
        parser.error(f"no golden model is called {', '.join(sorted(unknown))}")
    print(f"llama.cpp {version()}\n")
    print("| model | architecture | kB | entropy, nats | narrowest top-1 margin | rounding: KL |")
    print("|---|---|---|---|---|---|")
    for model in (*MODELS, *PARTLY):
        if names and model.name not in names:
            continue
        path = write_model(model, FOLDER)
        logits = golden_logits(model, path)
        print(_summary(model, path, logits))
        ids = np.array(tokens(), dtype=np.int32)
        np.savez_compressed(
            path.with_suffix(".npz"), tokens=ids, llama_cpp=np.array(version()), **logits
        )


if __name__ == "__main__":
    main()
