"""The vocabulary that a GGUF file describes: tokens, their kinds, and which of them are special.

Owns reading and checking the ``tokenizer.ggml`` keys, and llama.cpp's repairs of them: models are
converted and tried with llama.cpp, so a file is right when it works there. Knows nothing of how
text becomes tokens: that is ``tokenizer``.

Source: llama.cpp, src/llama-vocab.cpp (``llama_vocab::impl::load``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import TokenType

from moestream.errors import ModelFormatError
from moestream.gguf import GGUFHeader

_KEY = "tokenizer.ggml."
_BYTE = re.compile("<0x[0-9A-F]{2}>")

# Tokens that end a generation wherever they are found, whatever ``eos_token_id`` says.
_END_TEXTS = frozenset(
    {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
        "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]",
        "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
        "<｜end▁of▁sentence｜>", "[e~[", "<|end_of_msg|>",
    }
)  # fmt: skip
# Fill-in-the-middle tokens after which no text of the answer can follow.
_END_FIM_TEXTS = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": (
        "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
    ),
    "fim_sep_token_id": ("<|file_sep|>",),
}  # fmt: skip
_OTHER_CONTROL_TEXTS = frozenset(
    {
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
        "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>",
        "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
        "<|middle|>",
    }
)  # fmt: skip
# The channels of gpt-oss: what a reader must see to tell its thinking from its answer.
_VISIBLE_TEXTS = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})
_PLAMO_END = "<|plamo:eos|>"
_MEANINGFUL = frozenset(
    {*_END_TEXTS, *_OTHER_CONTROL_TEXTS, *_VISIBLE_TEXTS, _PLAMO_END}.union(
        *_END_FIM_TEXTS.values()
    )
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, ids by token, and the roles that some of them have.

    ``tokens`` are as the file spells them: byte-level or with ``▁`` for a space. ``merges`` are
    the two parts with a space between, the first to be applied first. ``add_bos`` and ``add_eos``
    are None where the file leaves it to the kind of tokenizer.
    """

    path: Path
    tokens: Sequence[str]
    ids: Mapping[str, int]
    types: Sequence[int]
    merges: Sequence[str]
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    end_ids: frozenset[int]
    add_bos: bool | None
    add_eos: bool | None
    command_ids: frozenset[int]  # tokens that steer a model: none may come of what others say
    strips_right: frozenset[int]  # tokens that swallow the white space that follows them

    @classmethod
    def from_gguf(
        cls, file: GGUFHeader, *, merges: bool, defaults: dict[str, int] | None = None
    ) -> "Vocabulary":
        """Read and check a vocabulary.

        Args:
            file: the model file.
            merges: whether the kind of tokenizer needs a list of merges.
            defaults: ids of special tokens for files that name none, by key.

        Raises:
            ModelFormatError: a key is missing, of the wrong type, or contradicts another.
        """
        tokens = _read_tokens(file)
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(ids) != len(tokens):
            twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
            raise ModelFormatError(f"{file.path}: token {twice!r} is in the vocabulary twice")
        special = _read_special_ids(file, len(tokens), defaults or {})
        listed = merges and f"{_KEY}merges" in file.metadata
        merge_lines = read_array(file, "merges", str, at_least=0) if listed else []
        types = _read_types(file, tokens)
        hidden = _of_types(types, TokenType.CONTROL, TokenType.UNKNOWN)
        meaningful = _without_text(ids, types, merge_lines)
        end_ids = _repair(types, meaningful, special)
        steering = {id for id in meaningful.values() if types[id] != TokenType.NORMAL}
        return cls(
            path=file.path,
            tokens=tokens,
            ids=ids,
            types=types,
            merges=merge_lines,
            bos_id=special.get("bos_token_id"),
            eos_id=special.get("eos_token_id"),
            unknown_id=special.get("unknown_token_id"),
            end_ids=end_ids,
            add_bos=file.get(f"{_KEY}add_bos_token", bool, None),
            add_eos=file.get(f"{_KEY}add_eos_token", bool, None),
            command_ids=frozenset(hidden) | steering,
            strips_right=_find_right_strippers(file, ids, types),
        )

    def of_types(self, *types: TokenType) -> list[int]:
        """Return the ids of the tokens of these types."""
        return _of_types(self.types, *types)


def _of_types(all_types: Sequence[int], *types: TokenType) -> list[int]:
    wanted = frozenset(map(int, types))  # of plain numbers: much faster to compare
    return [id for id, type in enumerate(all_types) if type in wanted]


def is_text(token: str) -> bool:
    """Whether a token is UTF-8; what is not can be said by a model, and come of no text."""
    return token.isascii() or not any("\ud800" <= character <= "\udfff" for character in token)


def read_array(file: GGUFHeader, name: str, kind: type[Any], *, at_least: int = 1) -> list[Any]:
    """Return the array ``tokenizer.ggml.<name>``.

    Raises:
        ModelFormatError: it is missing, shorter than ``at_least``, or holds anything but ``kind``.
    """
    values = file.get(_KEY + name, list)
    if len(values) < at_least:
        raise ModelFormatError(
            f"{file.path}: {_KEY}{name} has {len(values)} entries; at least {at_least} were "
            "expected"
        )
    # A GGUF array is of one type: its first element speaks for all.
    if values and type(values[0]) is not kind:
        raise ModelFormatError(
            f"{file.path}: {_KEY}{name} holds {type(values[0]).__name__} values; "
            f"{kind.__name__} was expected"
        )
    return values


def _read_tokens(file: GGUFHeader) -> list[str]:
    tokens: list[str] = read_array(file, "tokens", str)
    # llama.cpp's name for a hole in the vocabulary, so that no two tokens are the same.
    return [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]


def _read_types(file: GGUFHeader, tokens: Sequence[str]) -> list[int]:
    if f"{_KEY}token_type" not in file.metadata:
        return [TokenType.NORMAL] * len(tokens)
    types = read_array(file, "token_type", int, at_least=len(tokens))[: len(tokens)]
    byte = int(TokenType.BYTE)
    for token, type in zip(tokens, types, strict=True):
        if type == byte and not _BYTE.fullmatch(token):
            raise ModelFormatError(
                f"{file.path}: token {token!r} is of type BYTE; such are named <0x00> to <0xFF>"
            )
    return types


def _read_special_ids(file: GGUFHeader, n_tokens: int, defaults: dict[str, int]) -> dict[str, int]:
    """Return the ids that the file gives a role, by their key."""
    found = {name: id for name, id in defaults.items() if id < n_tokens}
    roles = ("bos", "eos", "eot", "eom", "unknown", "fim_pad", "fim_rep", "fim_sep")
    for name in (f"{role}_token_id" for role in roles):
        id = file.get(_KEY + name, int, None)
        if id is None:
            continue
        if 0 <= id < n_tokens:  # else as if it were not there, as in llama.cpp
            found[name] = id
    return found


def _without_text(
    ids: dict[str, int], types: Sequence[int], merges: Sequence[str]
) -> dict[str, int]:
    """Return the tokens whose names may mean something: not those that merges make of text.

    llama.cpp stops at any ``</s>``; to Qwen it is a piece of HTML, and marked as such.
    """
    found = {text: ids[text] for text in _MEANINGFUL if text in ids}
    if doubtful := {text for text, id in found.items() if types[id] == TokenType.NORMAL}:
        for text in doubtful.intersection(merge.replace(" ", "", 1) for merge in merges):
            del found[text]
    return found


def _repair(types: list[int], ids: dict[str, int], special: dict[str, int]) -> frozenset[int]:
    """Correct token types as llama.cpp does, and return the ids that end a generation."""
    by_text = {text: ids[text] for text in _END_TEXTS if text in ids}
    for role, texts in _END_FIM_TEXTS.items():
        if role not in special:
            by_text |= {text: ids[text] for text in texts if text in ids}
    others = [ids[text] for text in _OTHER_CONTROL_TEXTS if text in ids]
    for id in (*by_text.values(), *others):
        types[id] = TokenType.CONTROL
    for text in _VISIBLE_TEXTS:
        if text in ids:
            types[ids[text]] = TokenType.USER_DEFINED
    roles = ("eos_token_id", "eot_token_id", "eom_token_id", *_END_FIM_TEXTS)
    end_ids = {*by_text.values(), *(special[role] for role in roles if role in special)}
    for text, type in _not_ends({text for text, id in ids.items() if id in end_ids}):
        end_ids.discard(ids[text])
        types[ids[text]] = type
    return frozenset(end_ids)


def _not_ends(ends: set[str]) -> list[tuple[str, TokenType]]:
    """Find the texts among ``ends`` that end nothing in the company of the others."""
    exceptions = []
    # gpt-oss and solar-open end a message with <|end|> and go on with the next.
    if (
        "<|end|>" in ends
        and ends & {"<|call|>", "<|calls|>"}
        and ends & {"<|return|>", "<|flush|>"}
    ):
        exceptions.append(("<|end|>", TokenType.USER_DEFINED))
    # In gemma 4 and PLaMo this is a piece of HTML.
    if "</s>" in ends and ends & {"<|tool_response>", _PLAMO_END}:
        exceptions.append(("</s>", TokenType.NORMAL))
    return exceptions


def _find_right_strippers(
    file: GGUFHeader, ids: dict[str, int], types: list[int]
) -> frozenset[int]:
    # GGUF has no key for this; llama.cpp, too, goes by the model's name.
    name = file.get("general.name", str, "").lower()
    if "phi-3" not in name and "phi3" not in name:
        return frozenset()
    kinds = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    exempt = {ids.get(text) for text in ("<unk>", "<s>", "<|endoftext|>")}
    return frozenset(id for id, type in enumerate(types) if type in kinds and id not in exempt)
