"""One prompt: a user's words, and how they are put to a model."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moestream.chat.thinking import Thinking, opens_reasoning
from moestream.errors import TemplateError

if TYPE_CHECKING:
    from moestream.chat.reasoning import Markers
    from moestream.gguf import GGUFFile
    from moestream.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's words and how they are put to the model."""

    text: str
    system: str | None = None
    raw: bool = False
    chat_template: str | None = None
    special: bool = False
    """Whether special tokens that the user spells are read as such."""
    thinking: Thinking = field(default_factory=Thinking)

    def prepare(self, tokenizer: "Tokenizer", file: "GGUFFile") -> "Prepared":
        """Turn the prompt into tokens, through the chat template unless it is raw.

        Raises:
            TemplateError: no template, or it does not render, or to nothing.
        """
        if self.raw:
            return Prepared(tokenizer.encode(self.text, parse_special=self.special))
        from moestream.chat.reasoning import find_markers
        from moestream.chat.template import ChatTemplate

        template = ChatTemplate.from_gguf(file, tokenizer, override=self.chat_template)
        messages = [{"role": "user", "content": self.text}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        values = self.thinking.template_values()
        text = template.render(messages, special=self.special, **values)
        if not text:
            raise TemplateError(
                f"the chat template ({template.origin}) writes no text for the prompt; pass "
                "another with --chat-template, or --raw"
            )
        markers = find_markers(template.source, tokenizer)
        text = self.thinking.ended(text, markers)
        return Prepared(tokenizer.encode_chat(text), markers, opens_reasoning(text, markers))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt's tokens; what tells reasoning from the answer, and whether the prompt opens it."""

    tokens: list[int]
    markers: "Markers | None" = None
    inside: bool = False
