"""What was said: a system prompt and turns, kept and saved apart from any model.

Owns the format of saved conversations: JSON with OpenAI's list of messages under ``messages``.
Knows nothing of tokens, nor of how a conversation is shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from moestream.errors import ConversationError
from moestream.folders import read_text, replacing
from moestream.reasons import reason_of

FORMAT = "moestream conversation"
VERSION = 1


@dataclass(slots=True)
class Turn:
    """What a user said and what the model answered (None: not yet), its reasoning apart."""

    user: str
    answer: str | None = None
    reasoning: str = ""


@dataclass(slots=True)
class Conversation:
    """A system prompt, if any, and the turns so far, oldest first."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        """All that was said, for a chat template.

        Reasoning is under ``reasoning_content``: the template decides what is repeated of it.
        """
        found = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            found.append({"role": "user", "content": turn.user})
            if turn.answer is None:
                continue
            answer = {"role": "assistant", "content": turn.answer}
            if turn.reasoning:
                answer["reasoning_content"] = turn.reasoning
            found.append(answer)
        return found

    def undo(self) -> Turn | None:
        """Forget the last turn and return it; None if there is none."""
        return self.turns.pop() if self.turns else None

    def drop(self, count: int) -> int:
        """Forget the ``count`` oldest turns, never the system prompt; return how many."""
        dropped = self.turns[:count]
        del self.turns[:count]
        return len(dropped)

    def clear(self) -> None:
        """Forget all turns, not the system prompt."""
        self.turns.clear()

    def save(self, path: Path, *, model: str) -> None:
        """Write the conversation; a file that is there is replaced when all is written.

        Raises:
            OSError: it cannot be written; what was there is as it was.
        """
        value = {
            "format": FORMAT,
            "version": VERSION,
            "model": model,
            "messages": self.messages(),
        }
        with replacing(path, errors="replace") as file:
            json.dump(value, file, ensure_ascii=False, indent=2)
            file.write("\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a conversation, ours or any JSON with a list of messages.

        Raises:
            ConversationError: it is not one.
            OSError: it cannot be read.
        """
        try:
            value = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise ConversationError(f"{path} is no conversation: {reason_of(error)}") from None
        messages = value.get("messages") if isinstance(value, dict) else value
        if isinstance(value, dict) and value.get("version", VERSION) != VERSION:
            raise ConversationError(
                f"{path} is of version {value['version']!r} of the format; expected {VERSION}"
            )
        if not isinstance(messages, list):
            raise ConversationError(f'{path} has no list of "messages", as /save writes it')
        return cls._from_messages(messages, path)

    @classmethod
    def _from_messages(cls, messages: list[Any], path: Path) -> Self:
        """Pair up messages, which must be a system prompt, if any, and then alternate."""
        conversation = cls()
        for number, message in enumerate(messages, 1):
            role, content, reasoning = _fields(message, f"{path}, message {number}")
            if role == "system" and number == 1:
                conversation.system = content
                continue
            expected = "user" if number % 2 != (conversation.system is not None) else "assistant"
            if role != expected:
                raise ConversationError(
                    f'{path}, message {number} is of role "{role}", expected "{expected}"'
                )
            if role == "user":
                conversation.turns.append(Turn(content))
            else:
                turn = conversation.turns[-1]
                turn.answer, turn.reasoning = content, reasoning
        if conversation.turns and conversation.turns[-1].answer is None:
            raise ConversationError(f"{path} ends with a user's message that has no answer")
        return conversation


def _fields(message: Any, where: str) -> tuple[str, str, str]:
    if not isinstance(message, Mapping):
        raise ConversationError(f"{where} is not an object with a role and a content")
    role, content = message.get("role"), message.get("content")
    reasoning = message.get("reasoning_content") or ""
    if not (isinstance(role, str) and isinstance(content, str) and isinstance(reasoning, str)):
        raise ConversationError(f"{where} has no role and content that are text")
    return role, content, reasoning
