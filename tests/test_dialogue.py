"""Conversations with the model that recites the alphabet: what is run, kept and taken back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET, END

from moestream.chat.conversation import Conversation, Turn
from moestream.chat.dialogue import Dialogue
from moestream.chat.fitting import Fitting
from moestream.chat.settings import Settings
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.session import Session
from moestream.engine.tokens import common_length
from moestream.errors import ContextLengthError, StorageError, TemplateError
from moestream.models.passes import Pass
from moestream.streaming.options import StreamingOptions

ANSWER = len(ALPHABET.encode())
STRIPS = (  # reasoning of all but the last answer, as most templates do
    "{% for m in messages %}{{ m.role }}:{% if m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:<think>\n{% endif %}"
)


def open_dialogue(path: Path, context: int = 4096, **options: Any) -> Dialogue:
    engine = Engine.open(path, backend="reference", context_length=context)
    settings = Settings(SamplingParams(temperature=0), **options)
    return Dialogue(engine, Conversation(), settings)


@pytest.fixture
def dialogue(alphabet: Path) -> Iterator[Dialogue]:
    opened = open_dialogue(alphabet)
    yield opened
    opened.engine.close()


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    """Wants to stop when asked for the ``steps``-th time after the (first) pass of the prompt.

    That asks once itself: the model has one layer.
    """
    asked = iter(range(1 << 30))
    return lambda: next(asked) >= steps


def say(dialogue: Dialogue, text: str, stop: Callable[[], bool] = never) -> str:
    return "".join(piece.text for pieces in dialogue.ask(text, stop) for piece in pieces)


def rendered(dialogue: Dialogue) -> list[int]:
    text = dialogue.template.render(dialogue.conversation.messages(), add_generation_prompt=False)
    return dialogue.tokenizer.encode_chat(text)


def test_only_new_tokens_are_run(dialogue: Dialogue) -> None:
    assert say(dialogue, "hello") == ALPHABET
    assert dialogue.answer is not None
    assert (dialogue.answer.cached_tokens, dialogue.answer.stop_reason) == (0, "end")
    first = list(dialogue.session.tokens)
    assert say(dialogue, "again") == ALPHABET
    assert dialogue.answer.cached_tokens == len(first)
    new = len("\n") + len("user\nagain\n") + len("assistant\n") + 4  # and the tokens of ChatML
    assert dialogue.answer.stats.prompt_tokens == new
    assert dialogue.answer.prompt_tokens == len(first) + new
    assert dialogue.conversation.turns == [Turn("hello", ALPHABET), Turn("again", ALPHABET)]
    assert dialogue.session.tokens == rendered(dialogue)[: len(dialogue.session.tokens)]
    assert dialogue.context_used == len(first) + new + ANSWER
    assert dialogue.total.generated_tokens == 2 * ANSWER


def test_an_interrupted_answer_stays_and_agrees_with_the_cache(dialogue: Dialogue) -> None:
    assert say(dialogue, "hello", after(3)) == "abc"
    assert dialogue.answer is not None
    assert (dialogue.answer.stop_reason, dialogue.answer.kept) == ("interrupted", True)
    assert dialogue.conversation.turns == [Turn("hello", "abc")]
    assert dialogue.session.tokens == rendered(dialogue)[: len(dialogue.session.tokens)]
    kept = len(dialogue.session.tokens)
    assert say(dialogue, "again") == ALPHABET
    assert dialogue.answer.cached_tokens == kept


def test_the_logits_after_reuse_are_those_of_a_fresh_session(dialogue: Dialogue) -> None:
    say(dialogue, "hello", after(5))
    say(dialogue, "again", after(2))
    dialogue.conversation.turns[0].answer = "abX"
    say(dialogue, "more", after(4))
    tokens = dialogue.session.tokens
    fresh = dialogue.engine.session()
    fresh.forward(tokens)
    assert (fresh.forward([7]) == dialogue.session.forward([7])).all()


def test_a_turn_without_any_answer_is_taken_back(dialogue: Dialogue) -> None:
    say(dialogue, "hello")
    assert say(dialogue, "x" * 3000, after(1)) == ""
    assert dialogue.answer is not None
    assert (dialogue.answer.stop_reason, dialogue.answer.kept) == ("interrupted", False)
    assert dialogue.conversation.turns == [Turn("hello", ALPHABET)]
    assert dialogue.answer.stats.prompt_tokens == 512  # one chunk, and then it was heard
    assert dialogue.context_used == len(rendered(dialogue))
    assert say(dialogue, "x" * 3000) == ALPHABET
    assert dialogue.answer.cached_tokens > 512


def test_undo_and_a_new_message_keep_the_cache_of_what_stays(dialogue: Dialogue) -> None:
    say(dialogue, "hello")
    kept = len(dialogue.session.tokens)
    say(dialogue, "one")
    dialogue.conversation.undo()
    dialogue.edited()
    assert dialogue.context_used == len(rendered(dialogue))
    say(dialogue, "two")
    assert dialogue.answer is not None
    shared = len("\n") + len("user\n") + 2
    assert dialogue.answer.cached_tokens == kept + shared


def test_the_same_message_anew_runs_one_token(dialogue: Dialogue) -> None:
    say(dialogue, "hello")
    dialogue.conversation.undo()
    assert say(dialogue, "hello") == ALPHABET
    assert dialogue.answer is not None
    assert dialogue.answer.stats.prompt_tokens == 1


def test_each_answer_has_a_seed_of_its_own_that_a_rerun_repeats(alphabet: Path) -> None:
    def answers() -> list[str]:
        dialogue = open_dialogue(alphabet, max_tokens=20)
        dialogue.settings.sampling = SamplingParams(
            temperature=30, top_k=0, top_p=1, min_p=0, seed=3
        )
        found = [say(dialogue, "hello") for _ in range(2)]
        dialogue.engine.close()
        return found

    first = answers()
    assert first[0] != first[1]
    assert answers() == first


def test_limits_and_stop_strings_end_an_answer(dialogue: Dialogue) -> None:
    dialogue.settings.max_tokens = 3
    assert say(dialogue, "hello") == "abc"
    assert dialogue.answer is not None
    assert dialogue.answer.stop_reason == "length"
    dialogue.settings.max_tokens, dialogue.settings.stop = None, ("def",)
    assert say(dialogue, "hello") == "abc"
    assert dialogue.answer.stop_reason == "stop"


# --- a full context ---


def test_a_message_that_does_not_fit_changes_nothing(alphabet: Path) -> None:
    dialogue = open_dialogue(alphabet, 150)
    say(dialogue, "hello")
    used = dialogue.context_used
    with pytest.raises(ContextLengthError, match=r"takes \d+ tokens, and the context holds 150"):
        say(dialogue, "x" * 100)
    assert dialogue.conversation.turns == [Turn("hello", ALPHABET)]
    assert dialogue.context_used == used
    assert say(dialogue, "y") == ALPHABET
    dialogue.engine.close()


def test_an_answer_that_fills_the_context_is_kept(alphabet: Path) -> None:
    dialogue = open_dialogue(alphabet, 40)
    text = say(dialogue, "hello")
    assert ALPHABET.startswith(text)
    assert dialogue.answer is not None
    assert dialogue.answer.stop_reason == "context"
    assert dialogue.conversation.turns[0].answer == text
    dialogue.engine.close()


def test_oldest_turns_make_room_where_that_was_asked_for(alphabet: Path) -> None:
    dialogue = open_dialogue(alphabet, 240, context_shift=True)
    dialogue.conversation.system = "Be brief."
    for number in range(6):
        assert say(dialogue, f"message {number}") == ALPHABET
    assert dialogue.answer is not None
    assert dialogue.answer.dropped_turns == 1
    assert [turn.user for turn in dialogue.conversation.turns] == [
        "message 3",
        "message 4",
        "message 5",
    ]
    assert dialogue.conversation.system == "Be brief."
    turns = list(dialogue.conversation.turns)
    with pytest.raises(ContextLengthError):  # no dropping would help
        say(dialogue, "x" * 300)
    assert dialogue.conversation.turns == turns
    dialogue.engine.close()


def test_room_is_made_by_one_turn_at_least(alphabet: Path) -> None:
    dialogue = open_dialogue(alphabet, 350)
    for number in range(6):
        say(dialogue, f"message {number}")
    assert dialogue.context_used > 300
    assert dialogue.make_room() == 2
    assert dialogue.context_used <= 350 - 350 // 4
    assert dialogue.make_room() == 1
    assert dialogue.make_room(2) == 2
    dialogue.engine.close()


def full(path: Path) -> tuple[Dialogue, list[Turn]]:
    """A dialogue whose next message has turns dropped, and its turns."""
    dialogue = open_dialogue(path, 400, context_shift=True)
    dialogue.conversation.turns = [Turn(f"hello {number}", "abc") for number in range(20)]
    return dialogue, list(dialogue.conversation.turns)


@pytest.mark.parametrize("failing", [TemplateError("no"), KeyboardInterrupt()])
def test_a_rendering_that_fails_drops_nothing(
    failing: BaseException, alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogue, turns = full(alphabet)
    render = dialogue.template.render

    def refuse(messages: Any, **options: Any) -> str:
        if len(dialogue.conversation.turns) < len(turns) and not trying:
            raise failing
        return render(messages, **options)

    trying, too_many = list[int](), Fitting._too_many

    def count(*arguments: Any) -> int:
        trying.append(1)
        found = too_many(*arguments)
        trying.clear()
        return found

    monkeypatch.setattr(dialogue.template, "render", refuse)
    monkeypatch.setattr(Fitting, "_too_many", count)
    with pytest.raises(type(failing)):
        say(dialogue, "again")
    assert dialogue.conversation.turns == turns
    for count in (None, 3):
        with pytest.raises(type(failing)):
            dialogue.make_room(count)
        assert dialogue.conversation.turns == turns
    dialogue.engine.close()


def test_a_message_taken_back_gives_back_what_was_dropped_for_it(alphabet: Path) -> None:
    dialogue, turns = full(alphabet)
    assert say(dialogue, "again", lambda: True) == ""
    assert dialogue.answer is not None
    assert (dialogue.answer.kept, dialogue.answer.dropped_turns) == (False, 0)
    assert dialogue.conversation.turns == turns
    assert dialogue.context_used == len(rendered(dialogue))
    assert say(dialogue, "again") == ALPHABET
    assert len(dialogue.conversation.turns) < len(turns)
    dialogue.engine.close()


def test_a_read_that_fails_after_a_shift_drops_nothing(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogue, turns = full(alphabet)

    def fail(*_: Any, **__: Any) -> Any:
        raise StorageError("the disk has gone")

    monkeypatch.setattr(Pass, "advance", fail)
    with pytest.raises(StorageError):
        say(dialogue, "again")
    assert dialogue.conversation.turns == turns
    dialogue.engine.close()


def test_a_message_alone_is_measured_as_it_was_rendered(alphabet: Path) -> None:
    with Engine.open(alphabet, backend="reference", context_length=150) as engine:
        dialogue = Dialogue(engine, Conversation(), Settings(), special=True)
        dialogue.conversation.turns = [Turn("hello" * 40, "abc")]
        with pytest.raises(ContextLengthError) as told:  # a token each, or ten as text
            say(dialogue, "<|im_end|>" * 30)
        assert told.type is ContextLengthError


# --- reasoning ---


def speak(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have the model say something else than the alphabet."""

    def generate(session: Session, tokens: list[int], *args: Any, **kwargs: Any) -> Iterator[int]:
        session.forward(tokens)
        for byte in text.encode():
            yield byte
            session.forward([byte])
        session.stop_reason = "end"

    monkeypatch.setattr(Session, "generate", generate)


def open_stripping(path: Path, folder: Path) -> tuple[Engine, Dialogue]:
    """A dialogue by a template that leaves reasoning out of what was said before."""
    template = folder / "strips.jinja"
    template.write_text(STRIPS, encoding="utf-8")
    engine = Engine.open(path, backend="reference")
    return engine, Dialogue(engine, Conversation(), Settings(), chat_template=str(template))


def test_reasoning_is_apart_and_a_template_that_strips_it_shortens_the_prefix(
    alphabet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, dialogue = open_stripping(alphabet, tmp_path)
    speak(monkeypatch, "hm, well\n</think>\n\nYes.")
    pieces = [piece for found in dialogue.ask("So?", never) for piece in found]
    assert {piece.kind for piece in pieces} == {"reasoning", "answer"}
    assert dialogue.conversation.turns == [Turn("So?", "Yes.", "hm, well")]
    say(dialogue, "And?")
    assert dialogue.answer is not None
    assert dialogue.answer.cached_tokens == len("user:So?\na")  # "ssistant:Yes.", not "<think>"
    engine.close()


def test_an_answer_cut_in_its_reasoning_is_kept(
    alphabet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, dialogue = open_stripping(alphabet, tmp_path)
    speak(monkeypatch, "hm, well")
    say(dialogue, "So?", after(3))  # generation is faked: the prompt asks nothing
    assert dialogue.conversation.turns == [Turn("So?", "", "hm,")]
    engine.close()


# --- failures ---


def test_what_a_template_refuses_is_not_said(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "refuses.jinja"
    template.write_text("{{ raise_exception('no') }}", encoding="utf-8")
    engine = Engine.open(alphabet, backend="reference")
    dialogue = Dialogue(engine, Conversation(), Settings(), chat_template=str(template))
    with pytest.raises(TemplateError, match="no"):
        say(dialogue, "hello")
    assert dialogue.conversation.turns == []
    engine.close()


@pytest.mark.parametrize(("fails_at", "kept"), [(1, []), (4, [Turn("hello", "abc")])])
def test_a_read_that_fails_keeps_what_was_answered_and_starts_the_cache_anew(
    fails_at: int, kept: list[Turn], dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, advance = iter(range(1, 1 << 30)), Pass.advance

    def fail(self: Pass) -> bool:
        if next(calls) == fails_at:
            dialogue.session._cache.length += 1  # in the middle of it
            raise StorageError("the disk has gone")
        return advance(self)

    monkeypatch.setattr(Pass, "advance", fail)
    with pytest.raises(StorageError):
        say(dialogue, "hello")
    assert dialogue.conversation.turns == kept
    assert dialogue.session.tokens == []
    assert say(dialogue, "again") == ALPHABET
    assert dialogue.session.tokens == rendered(dialogue)[: len(dialogue.session.tokens)]


def test_common_length() -> None:
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1], [1, 2]) == 1
    assert common_length([], [1]) == 0


def test_prefill_leaves_the_last_chunk(dialogue: Dialogue) -> None:
    session = dialogue.session
    assert list(session.prefill([END] * 512)) == []
    assert session.tokens == []
    assert list(session.prefill([END] * 1025)) == [512, 1024]
    assert len(session.tokens) == session.stats.prompt_tokens == 1024


def test_the_status_line_does_not_look_at_every_expert(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moestream._native", reason="needs the compiled part")
    options = StreamingOptions(io="madvise", pin="none")
    with Engine.open(alphabet, budget="auto", streaming=options, context_length=4096) as engine:
        dialogue = Dialogue(engine, Conversation(), Settings(SamplingParams(temperature=0)))
        assert say(dialogue, "hello") == ALPHABET
        assert engine.streaming is not None
        whole, asked = engine.streaming.stats(), list[int]()
        monkeypatch.setattr(engine.streaming.residency.reader, "is_resident", asked.append)
        assert dialogue.streamed == (
            whole.decode.hit_rate,
            whole.pinned_bytes,
            whole.read_bytes,
        )
        assert asked == []


def test_many_turns_are_dropped_with_few_renderings(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogue = open_dialogue(alphabet, 400, context_shift=True)
    dialogue.conversation.turns = [Turn(f"hello {number:03}", "abc") for number in range(200)]
    renderings = []
    render = dialogue.template.render
    monkeypatch.setattr(
        dialogue.template, "render", lambda *a, **k: renderings.append(1) or render(*a, **k)
    )
    say(dialogue, "again")
    assert dialogue.answer is not None
    assert len(renderings) <= 12
    dropped, limit = dialogue.answer.dropped_turns, dialogue.engine.context_length
    one = len("user\nhello 000\nassistant\nabc\n") + 4
    assert limit * 3 // 4 - one < dialogue.answer.prompt_tokens <= limit * 3 // 4
    assert dropped == 201 - len(dialogue.conversation.turns)
    dialogue.engine.close()
