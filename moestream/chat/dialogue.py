"""A conversation with a loaded model: each turn rendered, the new tokens run, the answer told.

Owns what of the KV cache is kept from turn to turn, and what happens when the context is full.
Knows nothing of how anything is shown.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from moestream.chat.breakers import breakers_of
from moestream.chat.conversation import Conversation, Turn
from moestream.chat.reasoning import Piece, ReasoningSplitter, find_markers
from moestream.chat.settings import Settings
from moestream.chat.template import ChatTemplate
from moestream.chat.thinking import opens_reasoning
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.stats import Stats
from moestream.engine.tokens import common_length
from moestream.errors import ContextLengthError, MessageLengthError, TemplateError
from moestream.prompt_cache import PromptCache
from moestream.streaming.statistics import Tally
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.text_stream import TextStream
from moestream.traces.recording import Recording

_ANSWER_SHARE = 4
"""Where turns are dropped to make room, one in so many tokens of the context is left free."""


@dataclass(slots=True)
class Answer:
    """What one answer took, as far as it has come."""

    stats: Stats
    prompt_tokens: int
    """All tokens of the conversation when the answer began."""
    cached_tokens: int
    """Those of them that were in the KV cache already."""
    dropped_turns: int = 0
    stop_reason: str | None = None
    """As ``Session.stop_reason``; or ``stop``, ``interrupted``."""
    kept: bool = True
    """False where nothing was answered, so that the turn was taken back."""


class Dialogue:
    """A conversation, the model that it is with, and the session that remembers it."""

    def __init__(
        self,
        engine: Engine,
        conversation: Conversation,
        settings: Settings,
        *,
        chat_template: str | None = None,
        special: bool = False,
        recording: Recording | None = None,
        prompt_cache: PromptCache | None = None,
    ) -> None:
        """Find the model's template; ``special`` as in ``ChatTemplate.render``.

        ``prompt_cache`` has what other conversations began with, and is given what this one reads.

        Raises:
            TemplateError, UnsupportedModelError, ModelFormatError: it has none, or no tokenizer.
        """
        self.engine = engine
        self.conversation = conversation
        self.settings = settings
        self.tokenizer = Tokenizer.from_gguf(engine.file)
        self.template = ChatTemplate.from_gguf(engine.file, self.tokenizer, override=chat_template)
        self._special = special
        self.markers = find_markers(self.template.source, self.tokenizer)
        self.session = engine.session()
        self.answer: Answer | None = None
        """The last, or the one under way."""
        self.answers = 0
        self.total = Stats()
        self._recording = recording
        self._prompt_cache = prompt_cache
        self._used: int | None = None if conversation.turns else 0
        self._before: Tally | None = None

    def ask(self, text: str, stop: Callable[[], bool]) -> Iterator[list[Piece]]:
        """Add a turn; yield its answer as it comes, with empty lists while there is none yet.

        Args:
            text: what the user says.
            stop: asked after each step. Where it says so the answer ends, and what there is of it
                is kept; a turn without any of it is taken back, and what was dropped for it is
                there again.

        Raises:
            ContextLengthError: it does not fit; the conversation is as it was.
            TemplateError: the template refuses it; the same.
            StorageError, ModelFormatError: a read failed. What was answered is kept.
        """
        turn, turns = Turn(text), self.conversation.turns
        before = list(turns)
        answer: Answer | None = None
        try:
            turns.append(turn)
            tokens, inside, dropped = self._fit()
            # At least one token is run: the logits after it are not in the cache.
            common = min(common_length(tokens, self.session.tokens), len(tokens) - 1)
            cached = self._restored(tokens, self.session.reusable(common))
            answer = self.answer = Answer(Stats(), len(tokens), cached, dropped)
            yield from self._answer(answer, turn, tokens, inside, stop)
        finally:
            if turn.reasoning:
                turn.answer = turn.answer or ""
            kept = turn.answer is not None
            if not kept:
                turns[:] = before  # also those that were dropped for it
            if answer is not None and answer.stop_reason is None:
                self.session = self.engine.session()  # cut in mid-pass: its cache is not sound
            if answer is not None:
                answer.kept, answer.dropped_turns = kept, answer.dropped_turns if kept else 0
                self._used = len(self.session.tokens) if kept else None
            if kept and self._prompt_cache is not None:
                self._prompt_cache.save(self.session.tokens, self.session.cache)

    def _restored(self, tokens: list[int], cached: int) -> int:
        """How many tokens are in the cache, with what the disk has of them if that is more."""
        stored = self._prompt_cache
        found = None if stored is None else stored.restore(tokens, more_than=cached)
        if found is None:
            return cached
        self.session.adopt(tokens, found)
        return found.length

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far; 0 where the template refuses it, as an answer will."""
        if self._used is None:
            try:
                self._used = self._count()
            except TemplateError:
                return 0
        return self._used

    @property
    def streamed(self) -> tuple[float | None, int, int] | None:
        """Share of hits in decoding the last answer, bytes pinned, bytes read for it; or None.

        The share is None as long as nothing was decoded.
        """
        now, before = self.session.tally, self._before or Tally()
        if now is None:
            return None
        hits = now.hits - before.hits
        asked = hits + now.misses - before.misses
        return hits / asked if asked else None, now.pinned_bytes, now.read_bytes - before.read_bytes

    def edited(self) -> None:
        """Tell that the conversation was changed from outside."""
        self._used = None

    def make_room(self, count: int | None = None) -> int:
        """Drop the ``count`` oldest turns; return how many.

        By default one, and more until a share of the context is free.

        Raises:
            TemplateError: the template refuses what is left; the conversation is as it was.
        """
        turns = self.conversation.turns
        before = list(turns)
        try:
            dropped = self.conversation.drop(count or 1)
            if count is None:
                dropped += self.conversation.drop(self._too_many(self._count))
            self._used = self._count()
        except BaseException:
            turns[:] = before
            raise
        return dropped

    def _too_many(self, count: Callable[[], int]) -> int:
        """How many of the oldest turns must go until a share of the context is free.

        All but the last at most. What is left is counted for a few numbers of turns, not for each:
        fewer turns take fewer tokens.
        """
        turns = self.conversation.turns

        def is_roomy(dropped: int) -> bool:
            self.conversation.turns = turns[dropped:]
            return count() <= self._roomy

        try:
            return bisect_left(range(max(len(turns) - 1, 0)), True, key=is_roomy)
        finally:
            self.conversation.turns = turns

    @property
    def _roomy(self) -> int:
        return self.engine.context_length - self.engine.context_length // _ANSWER_SHARE

    def _fit(self) -> tuple[list[int], bool, int]:
        """The tokens of the conversation, whether they open reasoning, and turns dropped for it.

        Who calls puts the turns back where nothing comes of it.
        """
        tokens, inside = self._render()
        dropped = 0
        limit = self.engine.context_length
        if self.settings.context_shift and len(tokens) > self._roomy:
            dropped = self.conversation.drop(self._too_many(lambda: len(self._render()[0])))
            tokens, inside = self._render()
        if len(tokens) >= limit:
            last = Conversation(self.conversation.system, self.conversation.turns[-1:])
            alone = self._written(last)
            if (length := len(self.tokenizer.encode_chat(alone))) >= limit:
                raise MessageLengthError(
                    f"The message has {length:,} tokens and the context holds {limit:,}. Shorten "
                    f"it, or start with -c {1 << length.bit_length()} or more."
                )
            raise ContextLengthError(
                f"with this message the conversation takes {len(tokens)} tokens, and the context "
                f"holds {limit}"
            )
        return tokens, inside, dropped

    def _render(self) -> tuple[list[int], bool]:
        text = self.settings.thinking.ended(self._written(self.conversation), self.markers)
        tokens = self.tokenizer.encode_chat(text)
        if not tokens:
            raise TemplateError(f"the chat template ({self.template.origin}) writes no text")
        return tokens, opens_reasoning(text, self.markers)

    def _written(self, conversation: Conversation, *, opens: bool = True) -> str:
        """A conversation as text; it ``opens`` the next answer."""
        return self.template.render(
            conversation.messages(),
            add_generation_prompt=opens,
            special=self._special,
            **self.settings.thinking.template_values(),
        )

    def _count(self) -> int:
        if not self.conversation.turns:
            return 0
        return len(self.tokenizer.encode_chat(self._written(self.conversation, opens=False)))

    def _answer(
        self,
        answer: Answer,
        turn: Turn,
        tokens: list[int],
        inside: bool,
        stop: Callable[[], bool],
    ) -> Iterator[list[Piece]]:
        session, started = self.session, time.perf_counter()
        session.truncate(answer.cached_tokens)
        session.stats = answer.stats
        self._before = session.tally
        recording = self._recording
        observe = None if recording is None else recording.observer(session, self.answers)
        yield []
        for _ in session.prefill(tokens[answer.cached_tokens :], on_route=observe, stop=stop):
            yield []
            if stop():
                answer.stop_reason = "interrupted"
                return
        stream = TextStream(self.tokenizer, self.settings.stop)
        splitter = ReasoningSplitter(self.markers, inside=inside)
        stop_reason: str | None = None
        for token in session.generate(
            tokens[len(session.tokens) :],
            self._sampling(),
            max_tokens=self.settings.max_tokens,
            end_ids=self.tokenizer.end_ids,
            breakers=breakers_of(self.settings.sampling, self.tokenizer),
            on_route=observe,
            stop=stop,
        ):
            if session.stats.generated_tokens == 1:
                session.stats.ttft_s = time.perf_counter() - started
            yield _keep(turn, splitter.add(self._text(stream, token)))
            if stream.stopped is not None or stop():
                stop_reason = "stop" if stream.stopped is not None else "interrupted"
                break
        answer.stop_reason = stop_reason or session.stop_reason
        yield _keep(turn, [*splitter.add(stream.finish()), *splitter.finish()])
        if answer.stop_reason != "interrupted":
            turn.answer = turn.answer or ""
        _add(self.total, session.stats)

    def _sampling(self) -> SamplingParams:
        """The parameters of the next answer: each has a seed of its own, which reruns repeat."""
        params, number = self.settings.sampling, self.answers
        self.answers += 1
        if params.seed is None:
            return params
        return replace(params, seed=(params.seed + number) % 2**32)

    def _text(self, stream: TextStream, token: int) -> str:
        """The token's text; a marker shows, though it may be a token that others do not see."""
        if self.markers is not None and self.tokenizer.is_hidden(token):
            name = self.tokenizer.token_bytes(token).decode(errors="replace")
            if name in (self.markers.open, self.markers.close):
                return stream.finish() + name
        return stream.add(token)


def _keep(turn: Turn, pieces: list[Piece]) -> list[Piece]:
    for piece in pieces:
        if piece.kind == "answer":
            turn.answer = (turn.answer or "") + piece.text
        else:
            turn.reasoning += piece.text
    return pieces


def _add(total: Stats, stats: Stats) -> None:
    total.prompt_tokens += stats.prompt_tokens
    total.prompt_s += stats.prompt_s
    total.generated_tokens += stats.generated_tokens
    total.generation_s += stats.generation_s
    total.generation_steps += stats.generation_steps
