"""Text to token ids and back, as the GGUF file at hand has it.

Owns BOS and EOS, and decoding without ever cutting a character. Special tokens in a text are
``special``'s; byte-pair encoding is ``bpe``'s, which leaves it to the ``tokenizers`` library.
Knows nothing of chats: ``chat``.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Self

from gguf.constants import TokenType

from moestream.errors import ModelFormatError
from moestream.gguf import GGUFHeader
from moestream.tokenizer import bpe
from moestream.tokenizer.special import MARK, Finder, mark, unmark
from moestream.tokenizer.vocabulary import Vocabulary

_HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)
_TEXTUAL = (*_HIDDEN, TokenType.USER_DEFINED)
_WHITE_SPACE = re.compile(r"[ \t\n\v\f\r]*")


class Tokenizer:
    """The tokenizer of a model file.

    ``end_ids`` are all ids that end a generation. ``model`` and ``pre`` are the file's names for
    the kind of encoding and the rules for words.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: bpe.Encoder) -> None:
        """Not for callers: use ``Tokenizer.from_gguf``."""
        self._vocabulary = vocabulary
        self._encoder = encoder
        self.model = encoder.model
        self.pre = encoder.pre
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.end_ids = vocabulary.end_ids
        self.add_bos = _resolve(vocabulary, "bos", vocabulary.add_bos, encoder.add_bos)
        self.add_eos = _resolve(vocabulary, "eos", vocabulary.add_eos, False)
        self._special_ids = {vocabulary.tokens[id]: id for id in vocabulary.of_types(*_TEXTUAL)}
        self._commands = Finder(vocabulary.tokens[id] for id in vocabulary.command_ids)
        user_ids = set(vocabulary.of_types(TokenType.USER_DEFINED)) - vocabulary.command_ids
        # Keyed by ``parse_special``.
        self._finders = {
            True: Finder(self._special_ids),
            False: Finder(vocabulary.tokens[id] for id in user_ids),
        }

    @classmethod
    def from_gguf(cls, file: GGUFHeader) -> Self:
        """Build the tokenizer that the file describes.

        Raises:
            UnsupportedModelError: a kind of tokenizer or pre-tokenizer that is not known here.
            ModelFormatError: its metadata is missing or contradicts itself.
        """
        return cls(*bpe.load(file))

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any text; what cannot be UTF-8 (lone surrogates) is read as U+FFFD.
            add_special: begin with BOS and end with EOS if the model wants them.
            parse_special: read ``<|im_end|>`` and the like as the tokens that they name; else
                they are plain text. Not for text that others wrote.
        """
        ids = [self.bos_id] if add_special and self.add_bos and self.bos_id is not None else []
        ids += self._encode(_well_formed(text), parse_special)
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def encode_chat(self, prompt: str) -> list[int]:
        """Return the ids of a rendered chat: special tokens read, one BOS if the model wants it.

        Not those in what was given to ``guard`` before it was rendered.
        Some templates write BOS and some leave it to the tokenizer: either way there is one.
        """
        ids = list(self._encode(prompt, True))
        if self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def guard(self, text: str) -> str:
        """Return a text for a template, which ``encode_chat`` will read as text and no command.

        It differs only where it spells a special token, and there by ``special.MARK``.
        """
        return mark(_well_formed(text), self._commands)

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Return the text of ids: the inverse of ``encode``, space prefixes included.

        Args:
            ids: any ids; bytes that are not UTF-8 become U+FFFD.
            skip_special: leave out control tokens.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        data = bytearray()
        starts = True
        for id in ids:
            piece = self.token_bytes(id)
            special = self._vocabulary.types[id] in _TEXTUAL
            if starts and self._encoder.space_prefix and not special:
                piece = piece.removeprefix(b" ")
            if not (skip_special and self._vocabulary.types[id] in _HIDDEN):
                data += piece
            starts = special
        return data.decode(errors="replace")

    def detokenizer(self, *, skip_special: bool = True) -> "Detokenizer":
        """Return a decoder for ids that come one by one; it keeps a leading space."""
        return Detokenizer(self, skip_special=skip_special)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that a token stands for; a special token's are those of its name.

        Raises:
            ValueError: the id is outside the vocabulary.
        """
        if not 0 <= id < self.vocab_size:
            raise ValueError(f"token id {id} is not in 0 to {self.vocab_size - 1}")
        token, type = self._vocabulary.tokens[id], self._vocabulary.types[id]
        if type in _TEXTUAL:
            return _bytes_of(token)
        if type == TokenType.BYTE:
            return bytes([int(token[3:5], 16)])
        if type != TokenType.NORMAL:
            return b""
        return _from_alphabet(token) if self._encoder.byte_level else _from_spelling(token)

    def token_id(self, text: str) -> int | None:
        """Return the id of the special token with this name."""
        return self._special_ids.get(text)

    def is_hidden(self, id: int) -> bool:
        """Whether the token is for the model's eyes only: control, or unknown."""
        return self._vocabulary.types[id] in _HIDDEN

    def _encode(self, text: str, parse_special: bool) -> Iterator[int]:
        for part in self._split(text, parse_special):
            if isinstance(part, int):
                yield part
            elif MARK in part:
                yield from self._encode(_well_formed(unmark(part)), False)
            else:
                yield from self._encoder.encode(_well_formed(part))

    def _split(self, text: str, parse_special: bool) -> Iterator[str | int]:
        """Yield the special tokens' ids and the texts between them, none of them empty."""
        position = 0
        for start, found in self._finders[parse_special](text):
            if before := text[position:start]:
                yield before
            id = self._special_ids[found]
            yield id
            position = start + len(found)
            if id in self._vocabulary.strips_right:
                position = _WHITE_SPACE.match(text, position).end()  # type: ignore[union-attr]
        if rest := text[position:]:
            yield rest


class Detokenizer:
    """Turns ids into text as they come, never half a character.

    Bytes that may yet become a character wait for the next id. What can become none is U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, id: int) -> str:
        """Return the text that this id completes.

        Raises:
            ValueError: the id is outside the vocabulary.
        """
        data = self._tokenizer.token_bytes(id)
        if self._skip_special and self._tokenizer.is_hidden(id):
            return ""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Return what was still waiting, and begin anew."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _resolve(vocabulary: Vocabulary, role: str, said: bool | None, default: bool) -> bool:
    """Whether BOS or EOS is added: as the file says, else by default where there is one."""
    id = vocabulary.bos_id if role == "bos" else vocabulary.eos_id
    if said and id is None:
        raise ModelFormatError(
            f"{vocabulary.path}: tokenizer.ggml.add_{role}_token is true, but "
            f"tokenizer.ggml.{role}_token_id is missing"
        )
    return (default if said is None else said) and id is not None


def _well_formed(text: str) -> str:
    """Replace lone surrogates, such as a command line has for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 is itself, the other 68 bytes are U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


def _from_alphabet(token: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes([table[character] for character in token])
    except KeyError:  # an added token, spelled as it is
        return _bytes_of(token)


def _from_spelling(token: str) -> bytes:
    return _bytes_of(token.replace(bpe.SPACE, " "))


def _bytes_of(token: str) -> bytes:
    return token.encode(errors="surrogateescape")
