"""The ways in which models write tool calls, and which a model has."""

from typing import Protocol

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.json_calls import JsonFormat
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import Reading, Text
from moestream.tokenizer import Tokenizer


class ToolFormat(Protocol):
    """A way to write calls: what they begin with, and how they are read."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call may begin with; none begins with another."""

    @property
    def specials(self) -> tuple[str, ...]:
        """Names of special tokens that are part of the text, though they may be hidden."""

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows an opener, and tell its calls.

        Raises:
            Malformed: it is no call.
        """


HERMES = JsonFormat("hermes", "<tool_call>", "</tool_call>")


def find_tool_format(template: str, tokenizer: Tokenizer) -> ToolFormat | None:
    """Return how a model writes tool calls, by its chat template and vocabulary, if we know."""
    del tokenizer
    return HERMES if "<tool_call>" in template else None
