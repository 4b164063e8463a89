"""What llama.cpp's samplers leave of given logits, written as a file that the tests read.

Needs `llama-cpp-python`, see `libllama.py`. All that chance has no part in: which tokens stay, what
their scores become, what Mirostat draws from. Knows nothing of moestream.

    python scripts/oracle/samplers.py tests/data/sampling/llama.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import lzma
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import llama_cpp as ll  # noqa: E402

from oracle.libllama import version  # noqa: E402
from oracle.vocabulary import LlamaVocab  # noqa: E402

VOCABULARY = ROOT / "tests/data/tokenizers/ggml-vocab-gpt-2.gguf.xz"
MANY = 3000
"""Tokens of a large vocabulary; DRY has the file's own, as its breakers are texts."""
SEED = 0
CASES: tuple[dict[str, Any], ...] = (
    *({"top_n_sigma": n} for n in (0.5, 1.0, 2.5)),
    *({"typical_p": p} for p in (0.01, 0.2, 0.5, 0.95)),
    *({"xtc_probability": 1.0, "xtc_threshold": t} for t in (0.0, 0.02, 0.1, 0.3, 0.5, 0.6)),
    *({"dynatemp_range": r, "dynatemp_exponent": e} for r in (0.3, 0.8, 2.0) for e in (0.5, 1, 3)),
    *({"top_p": p} for p in (0.0, 0.3, 0.95)),
    *({"min_p": p} for p in (0.01, 0.3)),
    *({"top_k": k} for k in (1, 40, 200)),
    {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25},
    {"top_k": 50, "typical_p": 0.7, "top_p": 0.9, "min_p": 0.02, "temperature": 0.7},
    {"top_k": 50, "xtc_probability": 1.0, "xtc_threshold": 0.05, "dynatemp_range": 0.5},
    {"samplers": ["temperature", "min_p", "top_k"], "temperature": 2.0, "min_p": 0.3, "top_k": 9},
    {"samplers": ["top_k", "penalties"], "top_k": 12, "repeat_penalty": 1.8},
    {"samplers": ["xtc", "top_p"], "xtc_probability": 1.0, "xtc_threshold": 0.05, "top_p": 0.6},
)
DRY_CASES: tuple[dict[str, Any], ...] = (
    {},
    {"dry_base": 3.0},
    {"dry_allowed_length": 0},
    {"dry_allowed_length": 4},
    {"dry_penalty_last_n": 12},
    {"dry_sequence_breakers": []},
    {"dry_sequence_breakers": ["e", "th"]},
    {"dry_sequence_breakers": ["zzz", "and t"]},
    {"dry_base": 1.0},
)
OFF: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repeat_last_n": 64,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 64,
    "dry_sequence_breakers": ["\n", ":", '"', "*"],
    "top_n_sigma": -1.0,
    "typical_p": 1.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "samplers": [
        *("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc"),
        "temperature",
    ],
}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / VOCABULARY.stem
        path.write_bytes(lzma.decompress(VOCABULARY.read_bytes()))
        with LlamaVocab(path) as vocab:
            rows = [*_chains(vocab), *_dry(vocab), *_mirostat()]
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    about = json.dumps(f"scripts/oracle/samplers.py, llama.cpp {version()}")
    out.write_text(f'{{"about": {about}, "cases": [\n{lines}\n]}}\n')


def logits_of(seed: int, size: int, spread: float) -> NDArray[np.float32]:
    """Logits that the tests can make too; no two are equal."""
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def _chains(vocab: LlamaVocab) -> Iterator[dict[str, Any]]:
    history = np.random.default_rng(SEED).integers(0, MANY, 100).tolist()
    for number, case in enumerate(CASES):
        spread = (1.0, 2.5)[number % 2]
        made = {"seed": number, "size": MANY, "spread": spread}
        logits = logits_of(number, MANY, spread)
        # Some of what penalties look at is likely.
        seen = [*history, *np.argsort(-logits)[:20:3].tolist(), int(np.argmax(logits))]
        left = _left(vocab, case, logits, seen)
        yield {"params": case, **made, "history": seen if "repeat_penalty" in case else [], **left}


def _dry(vocab: LlamaVocab) -> Iterator[dict[str, Any]]:
    size = vocab.size
    texts = (
        "the cat and the dog: the cat and the dog and the cat and the",
        "one two three one two three one two",
        "say: one two. say: one two. say: one",
        "aaaaaaaaaaaaaaaaaaaaaaa",
    )
    for number, text in enumerate(texts):
        history = vocab.tokenize(text, add_special=False, parse_special=False)
        for case in DRY_CASES:
            case = {"dry_multiplier": 0.8, **case}
            left = _left(vocab, case, logits_of(number, size, 2.0), history)
            made = {"seed": number, "size": size, "spread": 2.0}
            yield {"params": case, **made, "history": history, **left}


def _mirostat() -> Iterator[dict[str, Any]]:
    """What is drawn from, twice: what follows tells what was learnt of the first token."""
    for way in (1, 2):
        for number, (tau, eta) in enumerate(((5.0, 0.1), (3.0, 0.5), (1.0, 0.9))):
            settings = (1 + number, tau, eta)
            sampler = (
                ll.llama_sampler_init_mirostat(MANY, *settings, 100)
                if way == 1
                else ll.llama_sampler_init_mirostat_v2(*settings)
            )
            logits = logits_of(number, MANY, 2.0)
            steps = []
            for _ in range(3):
                array, keep = _array(logits)
                ll.llama_sampler_apply(sampler, ctypes.byref(array))
                ids = sorted(array.data[i].id for i in range(array.size))
                token = array.data[array.selected].id
                steps.append({"count": len(ids), "sum": sum(ids), "token": token})
                del keep
            ll.llama_sampler_free(sampler)
            params = {"mirostat": way, "mirostat_tau": tau, "mirostat_eta": eta}
            made = {"seed": number, "size": MANY, "spread": 2.0}
            yield {"params": params, **made, "steps": steps}


def _left(
    vocab: LlamaVocab,
    case: Mapping[str, Any],
    logits: NDArray[np.float32],
    history: Sequence[int],
) -> dict[str, Any]:
    """Which ids stay and what the scores of the first of them are."""
    params = {**OFF, **case}
    array, keep = _array(logits)
    chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
    for name in params["samplers"]:
        ll.llama_sampler_chain_add(chain, _sampler(name, params, vocab, len(logits)))
    for token in history:
        ll.llama_sampler_accept(chain, token)
    ll.llama_sampler_apply(chain, ctypes.byref(array))
    found = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    ll.llama_sampler_free(chain)
    del keep
    ids = sorted(id for id, score in found.items() if score > float("-inf"))
    changed = [id for id in ids if found[id] != float(logits[id])]
    shown = (changed or ids)[:12]
    scores = {str(id): float(f"{found[id]:.7g}") for id in shown}
    return {"count": len(ids), "sum": sum(ids), "changed": len(changed), "scores": scores}


def _sampler(name: str, p: Mapping[str, Any], vocab: LlamaVocab, size: int) -> Any:
    match name:
        case "penalties":
            last, repeat = p["repeat_last_n"], p["repeat_penalty"]
            more = p["frequency_penalty"], p["presence_penalty"]
            return ll.llama_sampler_init_penalties(size, last, repeat, *more)
        case "dry":
            texts = [text.encode() for text in p["dry_sequence_breakers"]]
            breakers = (ctypes.c_char_p * len(texts))(*texts)
            lengths = p["dry_allowed_length"], p["dry_penalty_last_n"]
            strength = p["dry_multiplier"], p["dry_base"]
            return ll.llama_sampler_init_dry(
                vocab._vocab, *strength, *lengths, breakers, len(texts)
            )
        case "top_n_sigma":
            return ll.llama_sampler_init_top_n_sigma(p["top_n_sigma"])
        case "top_k":
            return ll.llama_sampler_init_top_k(p["top_k"])
        case "typ_p":
            return ll.llama_sampler_init_typical(p["typical_p"], 0)
        case "top_p":
            return ll.llama_sampler_init_top_p(p["top_p"], 0)
        case "min_p":
            return ll.llama_sampler_init_min_p(p["min_p"], 0)
        case "xtc":
            return ll.llama_sampler_init_xtc(p["xtc_probability"], p["xtc_threshold"], 0, 1)
        case "temperature":
            dynamic = p["dynatemp_range"], p["dynatemp_exponent"]
            return ll.llama_sampler_init_temp_ext(p["temperature"], *dynamic)
    raise ValueError(f"{name!r} is no sampler")


def _array(logits: NDArray[np.float32]) -> tuple[ll.llama_token_data_array, Any]:
    data = (ll.llama_token_data * len(logits))()
    for id, logit in enumerate(logits.tolist()):
        data[id].id, data[id].logit, data[id].p = id, logit, 0.0
    array = ll.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    return array, data


if __name__ == "__main__":
    main()
