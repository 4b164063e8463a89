"""Vocabulary-only GGUF files: the committed ones, and small ones made for a test."""

import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter
from gguf.constants import TokenType

DATA = Path(__file__).parent / "data" / "tokenizers"
NAMES = sorted(path.name.split(".")[0] for path in DATA.glob("*.gguf.xz"))


def unpack(name: str, folder: Path) -> Path:
    """Write the committed vocabulary ``name`` to a folder."""
    path = folder / f"{name}.gguf"
    path.write_bytes(lzma.decompress((DATA / f"{name}.gguf.xz").read_bytes()))
    return path


def lines(name: str) -> list[tuple[str, list[int]]]:
    """Return the texts of llama.cpp's tests and their ids."""
    texts = (DATA / f"{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = (DATA / f"{name}.gguf.out").read_text().splitlines()
    # One more separator ends the texts.
    return [
        (text, [int(id) for id in line.split()]) for text, line in zip(texts, ids, strict=False)
    ]


def byte_tokens() -> list[str]:
    """GPT-2's letters for the 256 bytes, by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_vocabulary(path: Path, keys: dict[str, Any]) -> Path:
    """Write a file whose metadata are ``keys``; ``tokenizer.ggml.`` is put before plain ones."""
    writer = GGUFWriter(path, "llama")
    add: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in keys.items():
        add[type(value)](key if "." in key else f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_bytes_vocabulary(
    path: Path,
    specials: Sequence[tuple[str, TokenType]] = (),
    merges: Sequence[str] | None = ("a b",),
    **keys: Any,
) -> Path:
    """Write a byte-level vocabulary: 256 bytes, what the merges make, then ``specials``.

    ``keys`` are put over the rest; None takes a key away.
    """
    tokens = byte_tokens() + [merge.replace(" ", "", 1) for merge in merges or ()]
    types = [TokenType.NORMAL] * len(tokens) + [type for _, type in specials]
    made = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens + [text for text, _ in specials],
        "token_type": [int(type) for type in types],
        "merges": merges and list(merges),
    }
    return write_vocabulary(path, {k: v for k, v in (made | keys).items() if v is not None})


def write_pieces_vocabulary(path: Path, pieces: Sequence[tuple[str, float]], **keys: Any) -> Path:
    """Write a SentencePiece vocabulary: ``<unk> <s> </s>``, 256 bytes, then pieces with scores."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    control, byte = TokenType.CONTROL, TokenType.BYTE
    types = [TokenType.UNKNOWN, control, control] + [byte] * 256 + [TokenType.NORMAL] * len(pieces)
    made = {
        "model": "llama",
        "tokens": tokens + [piece for piece, _ in pieces],
        "token_type": [int(type) for type in types],
        "scores": [0.0] * 259 + [score for _, score in pieces],
    }
    return write_vocabulary(path, {k: v for k, v in (made | keys).items() if v is not None})
