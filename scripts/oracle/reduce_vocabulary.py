"""Cut a vocabulary file down to what some texts can touch, for the tests.

    python scripts/oracle/reduce_vocabulary.py VOCAB.gguf FOLDER [GOLDEN.json.xz]

Writes FOLDER/VOCAB.gguf.xz, and VOCAB.gguf.inp and .out with it. Token ids stay what they are:
a token that is no part of any text in VOCAB.gguf.inp becomes an empty one, and the merges that
make it go. A merge of parts of the texts is all that these texts can ever meet, so their ids do
not change. GOLDEN is a file of check_tokenizers.py, for its texts.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gguf import GGUFWriter
from gguf.constants import TokenType
from tokenizers.pre_tokenizers import ByteLevel

from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from golden.files import add_value

_KEPT_TYPES = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE)


def main(source: Path, folder: Path, golden: Path | None = None) -> None:
    """Write the reduced copy and its texts."""
    texts = Path(f"{source}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    if golden:
        texts += json.loads(lzma.decompress(golden.read_bytes()))["texts"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / source.name
        write_reduced(GGUFFile.open(source), texts, path)
        data = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    (folder / f"{source.name}.xz").write_bytes(data)
    for ending in (".inp", ".out"):
        shutil.copyfile(f"{source}{ending}", folder / f"{source.name}{ending}")


def write_reduced(file: GGUFFile, texts: Sequence[str], path: Path) -> None:
    """Write the metadata of `file` without the tokens that `texts` cannot touch."""
    tokens = file.get("tokenizer.ggml.tokens", list)
    types = file.get("tokenizer.ggml.token_type", list)
    tokenizer, longest = Tokenizer.from_gguf(file), max(map(len, tokens))
    parts = {part for text in texts for part in _parts(spelling(tokenizer, text), longest)}
    alphabet = set(ByteLevel.alphabet())  # no others are the bytes of byte-level vocabularies
    kept = [
        type in _KEPT_TYPES or token in parts or token in alphabet
        for token, type in zip(tokens, types, strict=True)
    ]
    alive = {token for token, keep in zip(tokens, kept, strict=True) if keep}
    arrays = {
        "tokens": [token if keep else "" for token, keep in zip(tokens, kept, strict=True)],
        "token_type": [type if keep else 1 for type, keep in zip(types, kept, strict=True)],
    }
    writer = GGUFWriter(path, str(file.metadata["general.architecture"]))
    for key, value in file.metadata.items():
        name = key.removeprefix("tokenizer.ggml.")
        if name == "merges":
            merges = [m for m in file.get(key, list) if alive.issuperset(_with_result(m))]
            writer.add_array(key, merges)
        elif name == "scores":
            scores = file.get(key, list)
            writer.add_array(key, [s if k else 0.0 for s, k in zip(scores, kept, strict=True)])
        elif name in arrays:
            writer.add_array(key, arrays[name])
        elif (name != key or key == "general.name") and not isinstance(value, list):
            add_value(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def spelling(tokenizer: Tokenizer, text: str) -> str:
    """Return a text as the vocabulary's tokens spell it."""
    if tokenizer.model == "gpt2":
        pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        return "".join(piece for piece, _ in pieces)
    return "▁" + text.replace(" ", "▁")


def _parts(text: str, longest: int) -> Iterator[str]:
    for start in range(len(text)):
        for length in range(1, min(longest, len(text) - start) + 1):
            yield text[start : start + length]


def _with_result(merge: str) -> tuple[str, str, str]:
    left, _, right = merge.partition(" ")
    return left, right, left + right


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
