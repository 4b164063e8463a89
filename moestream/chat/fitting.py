"""A conversation as a model's tokens, and how many of its turns there is room for."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from moestream.chat.conversation import Conversation
from moestream.chat.reasoning import Markers
from moestream.chat.settings import Settings
from moestream.chat.template import ChatTemplate
from moestream.chat.thinking import opens_reasoning
from moestream.errors import ContextLengthError, MessageLengthError, TemplateError
from moestream.tokenizer import Tokenizer

_ANSWER_SHARE = 4
"""Where turns are dropped to make room, one in so many tokens of the context is left free."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A model's template and context, and the settings of who talks with it."""

    template: ChatTemplate
    tokenizer: Tokenizer
    markers: Markers | None
    settings: Settings
    context_length: int
    special: bool

    @property
    def _roomy(self) -> int:
        return self.context_length - self.context_length // _ANSWER_SHARE

    def fit(self, conversation: Conversation) -> tuple[list[int], bool, int]:
        """The conversation's tokens, whether they open reasoning, and turns dropped for it.

        Who calls puts the turns back where nothing comes of it.

        Raises:
            ContextLengthError: it does not fit.
            TemplateError: the template refuses it.
        """
        tokens, inside = self._render(conversation)
        dropped = 0
        if self.settings.context_shift and len(tokens) > self._roomy:
            count = self._too_many(conversation, lambda: len(self._render(conversation)[0]))
            dropped = conversation.drop(count)
            tokens, inside = self._render(conversation)
        if len(tokens) >= self.context_length:
            raise self._too_long(conversation, len(tokens))
        return tokens, inside, dropped

    def count(self, conversation: Conversation) -> int:
        """Tokens of the turns so far.

        Raises:
            TemplateError: the template refuses them.
        """
        if not conversation.turns:
            return 0
        return len(self.tokenizer.encode_chat(self._written(conversation, opens=False)))

    def too_many(self, conversation: Conversation) -> int:
        """How many of the oldest turns must go until a share of the context is free.

        Raises:
            TemplateError: the template refuses what is left.
        """
        return self._too_many(conversation, lambda: self.count(conversation))

    def _too_many(self, conversation: Conversation, count: Callable[[], int]) -> int:
        """All but the last at most.

        What is left is counted for a few numbers of turns, not for each: fewer turns take fewer
        tokens.
        """
        turns = conversation.turns

        def is_roomy(dropped: int) -> bool:
            conversation.turns = turns[dropped:]
            return count() <= self._roomy

        try:
            return bisect_left(range(max(len(turns) - 1, 0)), True, key=is_roomy)
        finally:
            conversation.turns = turns

    def _too_long(self, conversation: Conversation, length: int) -> ContextLengthError:
        limit = self.context_length
        alone = self._written(Conversation(conversation.system, conversation.turns[-1:]))
        if (last := len(self.tokenizer.encode_chat(alone))) >= limit:
            return MessageLengthError(
                f"The message has {last:,} tokens and the context holds {limit:,}. Shorten "
                f"it, or start with -c {1 << last.bit_length()} or more."
            )
        return ContextLengthError(
            f"with this message the conversation takes {length} tokens, and the context "
            f"holds {limit}"
        )

    def _render(self, conversation: Conversation) -> tuple[list[int], bool]:
        text = self.settings.thinking.ended(self._written(conversation), self.markers)
        tokens = self.tokenizer.encode_chat(text)
        if not tokens:
            raise TemplateError(f"the chat template ({self.template.origin}) writes no text")
        return tokens, opens_reasoning(text, self.markers)

    def _written(self, conversation: Conversation, *, opens: bool = True) -> str:
        """A conversation as text; it ``opens`` the next answer."""
        return self.template.render(
            conversation.messages(),
            add_generation_prompt=opens,
            special=self.special,
            **self.settings.thinking.template_values(),
        )
