"""Chat templates: from messages to the prompt that the model was trained on.

Owns which template is used, what a template's failure looks like, and that text stays text: what a
user or a tool says is marked where it spells a special token. The process that a template runs in
is ``renderer``'s; turning the prompt into ids is ``Tokenizer.encode_chat``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from moestream.chat.named import TEMPLATES
from moestream.chat.renderer import Renderer, RenderingError
from moestream.errors import TemplateError
from moestream.folders import read_text
from moestream.gguf import GGUFFile
from moestream.reasons import reason_of
from moestream.tokenizer import Tokenizer

Message = Mapping[str, Any]
_PART_WORDS = (
    "type",
    *("text", "image", "image_url", "video", "video_url", "audio", "audio_url", "file"),
    *("input_text", "input_image", "input_audio", "input_file", "output_text", "refusal"),
)
"""What templates ask a part of a content for: its type, the types, and names like theirs."""
_BLOCKS = ("{{", "{%", "{#")
"""What a template's text has, and a file's name has not."""


class ChatTemplate:
    """A compiled chat template: its ``source``, and in words its ``origin``."""

    def __init__(
        self,
        source: str,
        *,
        origin: str,
        bos_token: str,
        eos_token: str,
        guard: Callable[[str], str] | None = None,
    ) -> None:
        """Not for callers: use ``from_gguf`` or ``from_source``."""
        self.origin = origin
        self._guard = guard
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._renderer = Renderer(source)
        except RenderingError as error:
            what = "cannot be compiled" if error.line is None else f"is wrong in line {error.line}"
            raise TemplateError(f"the chat template ({origin}) {what}: {error}") from None

    @classmethod
    def from_source(cls, text: str, *, bos_token: str = "", eos_token: str = "") -> Self:
        """Compile a template's text; the tokens are what it may write for itself.

        Raises:
            TemplateError: it is no template.
        """
        return cls(text, origin="given as text", bos_token=bos_token, eos_token=eos_token)

    @classmethod
    def from_gguf(
        cls, file: GGUFFile, tokenizer: Tokenizer, *, override: str | None = None
    ) -> Self:
        """Return the template of a model file.

        Args:
            file: the model file.
            tokenizer: its tokenizer.
            override: a name in ``TEMPLATES``, a template's text or its path, instead of the file's.

        Raises:
            TemplateError: there is none, or it is wrong.
        """
        source, origin = _find_override(override) if override else _find_own(file, tokenizer)
        return cls(
            source,
            origin=origin,
            bos_token=_token_text(tokenizer, tokenizer.bos_id),
            eos_token=_token_text(tokenizer, tokenizer.eos_id),
            guard=tokenizer.guard,
        )

    def render(
        self,
        /,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        special: bool = False,
        now: datetime | None = None,
        **kwargs: Any,
    ) -> str:
        """Return the prompt, for ``Tokenizer.encode_chat``.

        Args:
            messages: each with ``role`` and ``content``.
            add_generation_prompt: end with what opens the assistant's answer.
            tools: JSON schemas of functions.
            special: let what a user, a system prompt or a tool says be special tokens too; else
                only what the template writes, and the assistant's own turns, may be.
            now: the time that a template is told, by default the present.
            kwargs: what this very template knows besides, such as ``enable_thinking``.

        Raises:
            TemplateError: the template refuses the messages, or fails.
        """
        guard = None if special else self._guard
        names = {
            **self._tokens,
            "messages": [_prepare(message, guard) for message in messages],
            "tools": tools if guard is None else _guarded(tools, guard),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
        }
        try:
            return self._renderer.render(names, now)
        except RenderingError as error:
            raise TemplateError(f"the chat template ({self.origin}) fails: {error}") from None


def _prepare(message: Message, guard: Callable[[str], str] | None) -> dict[str, Any]:
    """Give reasoning the other name too that templates know it by: gpt-oss and LFM2.5 read it.

    And keep what others than the assistant say from being special tokens.
    """
    reasoning = message.get("reasoning_content")
    prepared = {**message} if reasoning is None else {"thinking": reasoning, **message}
    if guard is None or message.get("role") == "assistant":
        return prepared
    guarded = {
        key: value if key == "role" else _guarded(value, guard) for key, value in prepared.items()
    }
    if isinstance(content := prepared.get("content"), list | tuple):
        guarded["content"] = [_guarded_part(part, guard) for part in content]
    return guarded


def _guarded_part(part: Any, guard: Callable[[str], str]) -> Any:
    """A part of a content, guarded, but for the words that say of what kind it is."""
    if not isinstance(part, Mapping):
        return _guarded(part, guard)
    return {
        key if key in _PART_WORDS else _guarded(key, guard): (
            value if key == "type" and value in _PART_WORDS else _guarded(value, guard)
        )
        for key, value in part.items()
    }


def _guarded(value: Any, guard: Callable[[str], str]) -> Any:
    """All texts in a value of JSON, guarded, names too: a tool's arguments have any."""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, Mapping):
        return {_guarded(k, guard): _guarded(v, guard) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_guarded(item, guard) for item in value]
    return value


def _find_own(file: GGUFFile, tokenizer: Tokenizer) -> tuple[str, str]:
    source = file.get("tokenizer.chat_template", str, None)
    if source is not None:
        return source, "the model file's own"
    if all(tokenizer.token_id(name) is not None for name in ("<|im_start|>", "<|im_end|>")):
        return TEMPLATES["chatml"], "chatml, as the vocabulary has its tokens"
    raise TemplateError(
        f"{file.path} has no chat template; pass --chat-template with a file, a text or one of "
        f"{', '.join(TEMPLATES)}"
    )


def _find_override(name: str) -> tuple[str, str]:
    if name in TEMPLATES:
        return TEMPLATES[name], name
    if any(block in name for block in _BLOCKS) or "\n" in name:
        return name, "given as text"
    path = Path(name)
    if not os.path.lexists(path):  # also what is too long for a path
        close = get_close_matches(name, TEMPLATES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(TEMPLATES)}"
        raise TemplateError(f"no chat template is called {name!r}, and no such file exists; {hint}")
    try:
        return read_text(path), name
    except (OSError, UnicodeDecodeError) as error:
        told = f"the chat template {name} cannot be read: {reason_of(error)}"
        raise TemplateError(told) from error


def _token_text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.token_bytes(id).decode(errors="replace")
