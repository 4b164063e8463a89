"""llama.cpp as an oracle for tokenisers and its built-in chat templates, through libllama.

Owns the little that the scripts need of libllama to that end; `libllama.py` says how to get
it. Knows nothing of moestream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import llama_cpp as ll

from oracle.libllama import LlamaCppError, token_ids


class LlamaVocab:
    """The vocabulary of a GGUF file in llama.cpp.

    Raises:
        LlamaCppError: when libllama refuses the file.
    """

    def __init__(self, path: str | Path) -> None:
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        self._model = ll.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise LlamaCppError(f"llama.cpp cannot load {path}")
        self._vocab = ll.llama_model_get_vocab(self._model)
        self.size: int = ll.llama_vocab_n_tokens(self._vocab)
        self.bos_id = _id_or_none(ll.llama_vocab_bos(self._vocab))
        self.eos_id = _id_or_none(ll.llama_vocab_eos(self._vocab))
        self.end_ids = {id for id in range(self.size) if ll.llama_vocab_is_eog(self._vocab, id)}
        self.controls = [
            id for id in range(self.size) if ll.llama_vocab_is_control(self._vocab, id)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        ll.llama_model_free(self._model)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text."""
        return token_ids(self._vocab, text, add_special=add_special, parse_special=parse_special)

    def piece(self, id: int) -> bytes:
        """Return the bytes of a token, special ones' names included."""
        room = 1024
        buffer = ctypes.create_string_buffer(room)
        count = ll.llama_token_to_piece(self._vocab, id, buffer, room, 0, True)
        return buffer.raw[:count]


def apply_template(name: str, messages: Sequence[tuple[str, str]], *, open_answer: bool) -> str:
    """Return a chat of (role, content) in llama.cpp's built-in template `name`.

    Raises:
        LlamaCppError: when it has no such template, or the template refuses the chat.
    """
    chat = (ll.llama_chat_message * len(messages))(
        *(ll.llama_chat_message(role.encode(), text.encode()) for role, text in messages)
    )
    room = 65536
    buffer = ctypes.create_string_buffer(room)
    count = ll.llama_chat_apply_template(
        name.encode(), chat, len(messages), open_answer, buffer, room
    )
    if not 0 <= count <= room:
        raise LlamaCppError(f"llama.cpp's template {name!r} gave {count}")
    return buffer.raw[:count].decode()


def _id_or_none(id: int) -> int | None:
    return None if id < 0 else id
