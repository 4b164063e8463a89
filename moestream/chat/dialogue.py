"""A conversation with a loaded model: each turn rendered, the new tokens run, the answer told.

Owns what of the KV cache is kept from turn to turn. What happens when the context is full is
``fitting``'s; nothing is known here of how anything is shown.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from moestream.chat.breakers import breakers_of
from moestream.chat.conversation import Conversation, Turn
from moestream.chat.fitting import Fitting
from moestream.chat.reasoning import Piece, ReasoningSplitter, find_markers
from moestream.chat.settings import Settings
from moestream.chat.template import ChatTemplate
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.stats import Stats
from moestream.engine.tokens import common_length
from moestream.errors import TemplateError
from moestream.prompt_cache import PromptCache
from moestream.streaming.statistics import Tally
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.text_stream import TextStream
from moestream.traces.recording import Recording


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
        self.markers = find_markers(self.template.source, self.tokenizer)
        self._fitting = Fitting(
            *(self.template, self.tokenizer, self.markers, settings),
            context_length=engine.context_length,
            special=special,
        )
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
            tokens, inside, dropped = self._fitting.fit(self.conversation)
            # At least one token is run: the logits after it are not in the cache.
            common = min(common_length(tokens, self.session.tokens), len(tokens) - 1)
            cached = self._restored(tokens, self.session.reusable(common), stop)
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

    def _restored(self, tokens: list[int], cached: int, stop: Callable[[], bool]) -> int:
        """How many tokens are in the cache, with what the disk has of them if that is more."""
        stored = self._prompt_cache
        found = stored.restore(tokens, more_than=cached, stop=stop) if stored else None
        if found is None:
            return cached
        self.session.adopt(tokens, found)
        return found.length

    @property
    def context_used(self) -> int:
        """Tokens of the conversation so far; 0 where the template refuses it, as an answer will."""
        if self._used is None:
            try:
                self._used = self._fitting.count(self.conversation)
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
                dropped += self.conversation.drop(self._fitting.too_many(self.conversation))
            self._used = self._fitting.count(self.conversation)
        except BaseException:
            turns[:] = before
            raise
        return dropped

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
        self.total.add(session.stats)

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
            if name in self.markers.shown:
                return stream.finish() + name
        return stream.add(token)


def _keep(turn: Turn, pieces: list[Piece]) -> list[Piece]:
    for piece in pieces:
        if piece.kind == "answer":
            turn.answer = (turn.answer or "") + piece.text
        else:
            turn.reasoning += piece.text
    return pieces
