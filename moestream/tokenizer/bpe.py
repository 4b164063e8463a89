"""The byte-pair encoders: from a vocabulary, its merges and rules to a ``tokenizers`` object.

Owns the three kinds that models use: byte-level (GPT-2's), SentencePiece (Llama 2's), and
SentencePiece's spelling with listed merges (Gemma 4's). Knows nothing of special tokens in a
text, nor of decoding: ``tokenizer`` does.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tokenizers
from gguf.constants import TokenType
from tokenizers.models import BPE

from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.gguf import GGUFHeader
from moestream.tokenizer.pretokenizers import PreTokenizer, pre_tokenizers
from moestream.tokenizer.vocabulary import Vocabulary, is_text, read_array

SPACE = "▁"
_MODEL = "tokenizer.ggml.model"
_PRE = "tokenizer.ggml.pre"
_MODELS = ("gpt2", "llama", "gemma4")
_SPM_SPECIAL_IDS = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns text without special tokens into ids, and says how its tokens are spelled.

    ``model`` and ``pre`` are the file's names for it. ``byte_level``: tokens spell bytes in
    GPT-2's alphabet; else they are UTF-8 with ``▁`` for a space. ``space_prefix``: each text is
    encoded as if a space were before it. ``single_spaces``: runs of spaces become one.
    """

    model: str
    pre: str | None
    bpe: tokenizers.Tokenizer
    add_bos: bool
    byte_level: bool
    space_prefix: bool = False
    single_spaces: bool = False

    def encode(self, text: str) -> list[int]:
        """Encode a text that begins at the beginning or after a special token."""
        if self.single_spaces:
            text = re.sub(" +", " ", text).strip(" ")
        if self.space_prefix:
            text = " " + text
        if not self.byte_level:
            text = text.replace(" ", SPACE)
        ids: list[int] = self.bpe.encode(text, add_special_tokens=False).ids
        return ids


def load(file: GGUFHeader) -> tuple[Vocabulary, Encoder]:
    """Build what the file's ``tokenizer.ggml`` keys describe.

    Raises:
        UnsupportedModelError: a kind of tokenizer or pre-tokenizer that is not known here.
        ModelFormatError: keys that are missing or contradict each other.
    """
    model = file.get(_MODEL, str)
    if model == "llama":
        vocabulary = Vocabulary.from_gguf(file, merges=False, defaults=_SPM_SPECIAL_IDS)
        return vocabulary, _sentencepiece(file, vocabulary)
    if model in _MODELS:
        pre = "gemma4" if model == "gemma4" else _pre_name(file)
        vocabulary = Vocabulary.from_gguf(file, merges=True)
        return vocabulary, _with_merges(vocabulary, model, pre)
    if model == "none":
        raise UnsupportedModelError(
            f"{file.path}: it has no tokenizer ({_MODEL} is 'none'), so it takes token ids and no "
            "text; moestream bench runs it, as does the Python library"
        )
    raise UnsupportedModelError(
        f"{file.path}: the tokenizer is of kind {model!r} ({_MODEL}); "
        f"supported are {', '.join(_MODELS)}"
    )


def _pre_name(file: GGUFHeader) -> str:
    pre = file.get(_PRE, str, "")
    if pre:
        return pre
    # As llama.cpp does: files from before May 2024 do not say, and are better than none.
    _log.warning(
        "%s: %s is missing; using the rules 'default', which may not be the model's: convert the "
        "model again for the best output",
        file.path,
        _PRE,
    )
    return "default"


def _with_merges(vocabulary: Vocabulary, model: str, pre: str) -> Encoder:
    rules = pre_tokenizers().get(pre)
    if rules is None:
        raise UnsupportedModelError(
            f"{vocabulary.path}: the pre-tokenizer is {pre!r} ({_PRE}); known are "
            f"{', '.join(sorted(pre_tokenizers()))}"
        )
    controls = {vocabulary.tokens[id] for id in vocabulary.command_ids}
    parts = (merge.partition(" ") for merge in vocabulary.merges)
    # What is control cannot be merged, as in _merges_by_score.
    merges = [(left, right) for left, _, right in parts if left + right not in controls]
    bpe = _build(vocabulary, merges, rules)
    bpe.pre_tokenizer = rules.build()
    return Encoder(model, pre, bpe, rules.add_bos, rules.byte_level)


def _sentencepiece(file: GGUFHeader, vocabulary: Vocabulary) -> Encoder:
    tokens = vocabulary.tokens
    scores = [0.0] * len(tokens)  # where the file has none, as in llama.cpp
    if "tokenizer.ggml.scores" in file.metadata:
        scores = read_array(file, "scores", float, at_least=len(tokens))
    merges = list(_merges_by_score(vocabulary, scores))
    return Encoder(
        model="llama",
        pre=None,
        bpe=_build(vocabulary, merges, None),
        add_bos=True,
        byte_level=False,
        space_prefix=file.get("tokenizer.ggml.add_space_prefix", bool, True),
        single_spaces=file.get("tokenizer.ggml.remove_extra_whitespaces", bool, False),
    )


def _merges_by_score(vocabulary: Vocabulary, scores: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Yield the merges that SentencePiece's rule amounts to: the best-scored result first.

    A result's splits are in the order of their left part's length. Control tokens and bytes
    are no results: a text must not become a command by being merged.
    """
    kinds = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    ids = set(vocabulary.of_types(*kinds)) - vocabulary.command_ids
    pieces = {vocabulary.tokens[id]: scores[id] for id in sorted(ids)}
    for piece in sorted(pieces, key=pieces.__getitem__, reverse=True):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                yield left, right


def _build(
    vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], rules: PreTokenizer | None
) -> tokenizers.Tokenizer:
    tokens, ids = vocabulary.tokens, dict(vocabulary.ids)
    for id in vocabulary.command_ids - {vocabulary.unknown_id}:
        del ids[tokens[id]]  # so that no word can be one either
    damaged = [token for token in ids if not is_text(token)]
    for token in damaged:
        del ids[token]  # nor can what is no text
    if damaged:
        merges = [
            merge for merge in merges if all(part in ids for part in (*merge, "".join(merge)))
        ]
    byte_level = rules is not None and rules.byte_level
    unknown = None if vocabulary.unknown_id is None else tokens[vocabulary.unknown_id]
    try:
        return tokenizers.Tokenizer(
            BPE(
                ids,
                merges,
                unk_token=unknown if unknown in ids and not byte_level else None,
                fuse_unk=True,
                byte_fallback=not byte_level,
                ignore_merges=rules is not None and rules.ignore_merges,
            )
        )
    except Exception as error:  # the only type that ``tokenizers`` raises
        of_text = [merge for merge in merges if is_text("".join(merge))]
        if len(of_text) < len(merges):  # no text comes to the others
            return _build(vocabulary, of_text, rules)
        reason = " ".join(f"{error}".split())
        raise ModelFormatError(
            f"{vocabulary.path}: tokenizer.ggml.merges do not fit the vocabulary: {reason}"
        ) from None
