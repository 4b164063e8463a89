r"""Compare our token ids with llama.cpp's, on vocabularies and on all pre-tokenizer names.

    pip install llama-cpp-python==0.3.36
    python scripts/oracle/check_tokenizers.py VOCAB.gguf... [--base VOCAB.gguf] [--texts N] \
        [--golden FILE]

For each vocabulary: the texts of VOCAB.gguf.inp against the ids in VOCAB.gguf.out where there are
such, N random texts with special tokens read and not, the bytes of every token, BOS, EOS and the
ids that end a generation. For the byte-level vocabulary --base: its copies that differ in
`tokenizer.ggml.pre` alone, one for each name that we know. --golden writes what llama.cpp makes
of some texts under each set of rules, for the tests.

The names in `DIFFERENT` may differ from llama.cpp, for the reason given; nothing else may. The
last line is JSON, the exit status 1 if anything is amiss. `LLAMA_CPP_LIB_PATH` names the folder
of another libllama: see libllama.py.
"""

from __future__ import annotations

import argparse
import json
import lzma
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.pretokenizers import pre_tokenizers

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from oracle.tokenizer_texts import random_texts
from oracle.vocabulary import LlamaVocab

SEED = 20240501
GOLDEN_TEXTS = 120

_CASES = "llama.cpp knows no case outside ASCII, and no accents here"
_WIDE_SPACES = "llama.cpp takes spaces outside ASCII for no part of a class"
DIFFERENT = {
    **dict.fromkeys(("tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _CASES),
    **dict.fromkeys(("kimi-k2", "youtu"), _CASES),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), f"{_CASES}; its digits end at no word boundary"),
    "deepseek-llm": f"llama.cpp keeps digits together, the model does not; {_WIDE_SPACES}",
    "deepseek-coder": _WIDE_SPACES,
    "afmoe": "llama.cpp leaves what is before digits with the first of them",
}
# A piece of text in Qwen's vocabulary, but llama.cpp stops there.
TEXT_TO_US = {"</s>"}


def main() -> int:
    """Print a table for the vocabularies, one for the names, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("vocabularies", nargs="*", type=Path)
    parser.add_argument("--base", type=Path, help="a byte-level vocabulary to try all names on")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--golden", type=Path, help="file to write for the tests, .json.xz")
    options = parser.parse_args()
    report: dict[str, Any] = {
        "texts": options.texts,
        "vocabularies": {
            path.name: check_vocabulary(path, options.texts) for path in options.vocabularies
        },
    }
    if options.base:
        report["pre"] = check_names(options.base, options.texts)
    if options.golden:
        write_golden(options.base, options.golden)
    report["ok"] = all(
        row["ok"] for part in ("vocabularies", "pre") for row in report.get(part, {}).values()
    )
    print(json.dumps(report))
    return 0 if report["ok"] else 1


def check_vocabulary(path: Path, count: int) -> dict[str, Any]:
    """Compare all that can be compared on one vocabulary file."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(path))
    with LlamaVocab(path) as oracle:
        names = [oracle.piece(id).decode() for id in oracle.controls[:64]]
        names = [name for name in names if name not in TEXT_TO_US]
        row: dict[str, Any] = {
            "lines": _count_lines(tokenizer, path),
            "other_ids": _count_other_ids(tokenizer, oracle, count, names),
            "other_bytes": sum(
                tokenizer.token_bytes(id) != oracle.piece(id) for id in range(oracle.size)
            ),
            "same_bos_eos": (tokenizer.bos_id, tokenizer.eos_id) == (oracle.bos_id, oracle.eos_id),
            "other_ends": [oracle.piece(id).decode() for id in tokenizer.end_ids ^ oracle.end_ids],
        }
    passed, total = row["lines"]
    row["ok"] = (
        passed == total
        and (row["other_ids"] == 0 or tokenizer.pre in DIFFERENT)
        and row["same_bos_eos"]
        and TEXT_TO_US.issuperset(row["other_ends"])
    )
    print(
        f"{path.name:34} {passed}/{total} lines  {row['other_ids']:3}/{count} texts differ  "
        f"{row['other_bytes']:5} tokens differ  ends differ: {row['other_ends']}  "
        f"{'ok' if row['ok'] else 'NOT OK'}",
        flush=True,
    )
    return row


def check_names(base: Path, count: int) -> dict[str, Any]:
    """Compare the ids under every byte-level name, on copies of one vocabulary."""
    rows = {}
    for name, rules in pre_tokenizers().items():
        if not rules.byte_level:
            continue  # not in this vocabulary's alphabet; gemma-4 has its own file
        with tempfile.TemporaryDirectory() as folder:
            path = renamed(base, name, Path(folder))
            tokenizer = Tokenizer.from_gguf(GGUFFile.open(path))
            with LlamaVocab(path) as oracle:
                other = _count_other_ids(tokenizer, oracle, count, ())
        reason = DIFFERENT.get(name, "")
        rows[name] = {"other_ids": other, "reason": reason, "ok": other == 0 or bool(reason)}
        verdict = "ok" if rows[name]["ok"] else "NOT OK"
        print(f"{name:18} {other:4}/{count} texts differ  {verdict}  {reason}", flush=True)
    return rows


def write_golden(base: Path, target: Path) -> None:
    """Write llama.cpp's ids under each set of rules; where we differ, only texts that agree."""
    texts = list(random_texts(SEED + 1, GOLDEN_TEXTS))
    ids: dict[str, list[list[int] | None]] = {}
    for name in {rules.names[0]: None for rules in pre_tokenizers().values() if rules.byte_level}:
        with tempfile.TemporaryDirectory() as folder:
            path = renamed(base, name, Path(folder))
            tokenizer = Tokenizer.from_gguf(GGUFFile.open(path))
            with LlamaVocab(path) as oracle:
                found = [
                    oracle.tokenize(text, add_special=False, parse_special=False) for text in texts
                ]
        ids[name] = [
            None
            if name in DIFFERENT and tokenizer.encode(text, add_special=False) != expected
            else expected
            for text, expected in zip(texts, found, strict=True)
        ]
    data = json.dumps({"texts": texts, "ids": ids}, separators=(",", ":")).encode()
    target.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def renamed(base: Path, name: str, folder: Path) -> Path:
    """Write a copy of a vocabulary file that names another pre-tokenizer."""
    data, key = base.read_bytes(), b"tokenizer.ggml.pre"
    at = data.index(key) + len(key) + 4  # behind the key and the type of its value
    (length,) = struct.unpack_from("<Q", data, at)
    value = name.encode()
    path = folder / base.name
    path.write_bytes(data[:at] + struct.pack("<Q", len(value)) + value + data[at + 8 + length :])
    return path


def _count_lines(tokenizer: Tokenizer, path: Path) -> tuple[int, int]:
    """Return how many of llama.cpp's own test texts agree, and how many there are."""
    source, target = Path(f"{path}.inp"), Path(f"{path}.out")
    if not source.exists():
        return 0, 0
    texts = source.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = target.read_text().splitlines()
    agree = [
        tokenizer.encode(text, add_special=False) == [int(id) for id in line.split()]
        for text, line in zip(texts, lines, strict=False)  # one more newline ends the texts
    ]
    return sum(agree), len(lines)


def _count_other_ids(
    tokenizer: Tokenizer, oracle: LlamaVocab, count: int, names: Sequence[str]
) -> int:
    """Count the texts that get other ids, but for those with bytes that the vocabulary lacks.

    Falcon's has no vertical tab: both leave it out, but only we merge what is around it.
    """
    other = 0
    for index, text in enumerate(random_texts(SEED, count, names)):
        plain = tokenizer.encode(text, add_special=False, parse_special=False)
        ours = tokenizer.encode(text, parse_special=bool(index % 2))
        theirs = oracle.tokenize(text, add_special=True, parse_special=bool(index % 2))
        other += ours != theirs and tokenizer.decode(plain) == text
    return other


if __name__ == "__main__":
    sys.exit(main())
