"""Chat templates: from messages to the prompt that the model was trained on.

Owns which template is used, and what a template's failure looks like. The sandbox it runs in is
``sandbox``; turning the prompt into ids is ``Tokenizer.encode_chat``.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from jinja2.exceptions import TemplateSyntaxError

from moestream.chat.named import TEMPLATES
from moestream.chat.sandbox import compile_template
from moestream.errors import TemplateError
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled chat template: its ``source``, and in words its ``origin``."""

    def __init__(self, source: str, *, origin: str, bos_token: str, eos_token: str) -> None:
        """Not for callers: use ``from_gguf`` or ``from_source``."""
        self.origin = origin
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = compile_template(source)
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template ({origin}) is wrong in line {error.lineno}: {error.message}"
            ) from error
        except Exception as error:  # jinja2's parser and Python's compiler have limits of their own
            raise TemplateError(
                f"the chat template ({origin}) cannot be compiled: {error or type(error).__name__}"
            ) from error

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
            override: a name in ``TEMPLATES`` or the path of a template, instead of the file's.

        Raises:
            TemplateError: there is none, or it is wrong.
        """
        source, origin = _find_override(override) if override else _find_own(file, tokenizer)
        return cls(
            source,
            origin=origin,
            bos_token=_token_text(tokenizer, tokenizer.bos_id),
            eos_token=_token_text(tokenizer, tokenizer.eos_id),
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """Return the prompt, for ``Tokenizer.encode_chat``.

        Args:
            messages: each with ``role`` and ``content``.
            add_generation_prompt: end with what opens the assistant's answer.
            tools: JSON schemas of functions.
            kwargs: what this very template knows besides, such as ``enable_thinking``.

        Raises:
            TemplateError: the template refuses the messages, or fails.
        """
        names = {
            **self._tokens,
            "messages": [_with_reasoning(message) for message in messages],
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **kwargs,
        }
        try:
            return self._template.render(names)
        except Exception as error:  # a template is a program: anything can go wrong in it
            raise TemplateError(
                f"the chat template ({self.origin}) fails: {error or type(error).__name__}"
            ) from error


def _with_reasoning(message: Message) -> Message:
    """Give reasoning the other name too that templates know it by: gpt-oss and LFM2.5 read it."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else {"thinking": reasoning, **message}


def _find_own(file: GGUFFile, tokenizer: Tokenizer) -> tuple[str, str]:
    source = file.get("tokenizer.chat_template", str, None)
    if source is not None:
        return source, "the model file's own"
    if all(tokenizer.token_id(name) is not None for name in ("<|im_start|>", "<|im_end|>")):
        return TEMPLATES["chatml"], "chatml, as the vocabulary has its tokens"
    raise TemplateError(
        f"{file.path} has no chat template; pass --chat-template with a file or one of "
        f"{', '.join(TEMPLATES)}"
    )


def _find_override(name: str) -> tuple[str, str]:
    if name in TEMPLATES:
        return TEMPLATES[name], name
    path = Path(name)
    if not path.exists():
        close = get_close_matches(name, TEMPLATES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(TEMPLATES)}"
        raise TemplateError(f"no chat template is called {name!r}, and no such file exists; {hint}")
    try:
        return path.read_text(encoding="utf-8"), name
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"the chat template {name} cannot be read: {error}") from error


def _token_text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.token_bytes(id).decode(errors="replace")
