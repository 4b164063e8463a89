"""From tokens to what an answer holds, and to OpenAI's words for it: reasoning and tool calls.

The tokens are those of texts that models write; everything that reads them is real.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import content, events

from moestream.chat.reasoning import MARKERS
from moestream.chat.tool_calls import find_tool_format
from moestream.engine.options import SamplingParams
from moestream.engine.session import StopReason
from moestream.gguf import GGUFFile
from moestream.server.activity import Activity
from moestream.server.completion import Answer, Task
from moestream.server.jobs import Ended, Event, Job, Made, Usage
from moestream.server.openai import told
from moestream.server.openai.chat import Speaker
from moestream.server.openai.schemas import ChatRequest
from moestream.server.sse import Heard
from moestream.tokenizer import Tokenizer

THOUGHT = "<think>\nhm\n</think>\n\nSunny."
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def tokenizer(alphabet: Path) -> Iterator[Tokenizer]:
    with GGUFFile.open(alphabet) as file:
        yield Tokenizer.from_gguf(file)


def task(tokenizer: Tokenizer, **fields: Any) -> Task:
    job = Job(prompt=[1], sampling=SamplingParams())
    return Task(
        job=job,
        markers=MARKERS[0],
        tool_format=find_tool_format("<tool_call>", tokenizer),
        **fields,
    )


def told_of(
    tokenizer: Tokenizer, text: str, *, reason: StopReason = "end", size: int = 1, **fields: Any
) -> tuple[Answer, list[Any], Any]:
    """An answer, its stream and the whole of it, where so many tokens come at a time."""
    answer = Answer(task(tokenizer, **fields), tokenizer)
    speaker = Speaker(ChatRequest(messages=[]), told.Envelope("chat.completion", "m"), tokenizer)
    running = Activity().begin(answer.task.job, None)  # type: ignore[arg-type]
    made: list[Event] = [Made(id) for id in tokenizer.encode(text)]
    batches = [made[at : at + size] for at in range(0, len(made), size)]
    said = b""
    for batch in (*batches, [Ended(reason, Usage())]):
        if answer.finish is None:
            had = len(answer.made)
            new = answer.hear(batch)
            heard = Heard(0, answer, running, new, answer.made[had:])
            said += b"".join(speaker.more(heard))
    said += b"".join(speaker.end(0, answer, running))
    return answer, events(said.decode()), speaker.whole([answer], [running])["choices"][0]


def calls(stream: list[Any]) -> dict[int, dict[str, str]]:
    """The calls that a client puts together of a stream."""
    found: dict[int, dict[str, str]] = {}
    for part in stream:
        for each in part["choices"][0]["delta"].get("tool_calls", ()):
            call = found.setdefault(each["index"], {"arguments": ""})
            if "id" in each:
                call |= {"id": each["id"], "name": each["function"]["name"]}
            call["arguments"] += each["function"]["arguments"]
    return found


@pytest.mark.parametrize("size", [1, 3, 100])
def test_reasoning_is_told_apart(tokenizer: Tokenizer, size: int) -> None:
    answer, stream, whole = told_of(tokenizer, THOUGHT, size=size)
    assert (answer.reasoning, answer.content) == ("hm", "Sunny.")
    assert content(stream, "reasoning_content") == "hm"
    assert content(stream) == "Sunny."
    assert whole["message"] == {
        "role": "assistant",
        "content": "Sunny.",
        "reasoning_content": "hm",
    }


def test_reasoning_that_the_prompt_has_opened(tokenizer: Tokenizer) -> None:
    text = THOUGHT.removeprefix("<think>")
    answer, _, _ = told_of(tokenizer, text, inside=True)
    assert (answer.reasoning, answer.content) == ("hm", "Sunny.")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_calls_are_told_as_they_come(tokenizer: Tokenizer, size: int) -> None:
    text = f"<think>hm</think>Let me look.\n{CALL}\n{CALL.replace('Rome', 'Oslo')}"
    answer, stream, whole = told_of(tokenizer, text, size=size, tools=TOOLS)
    assert answer.reasoning == "hm"
    assert content(stream).strip() == "Let me look."
    found = calls(stream)
    assert [call["name"] for call in found.values()] == ["weather"] * 2
    assert [json.loads(call["arguments"])["city"] for call in found.values()] == ["Rome", "Oslo"]
    assert found[0]["id"] != found[1]["id"]
    assert stream[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["finish_reason"] == "tool_calls"
    assert [call["id"] for call in whole["message"]["tool_calls"]] == [
        call["id"] for call in found.values()
    ]
    assert [call["function"]["arguments"] for call in whole["message"]["tool_calls"]] == [
        call["arguments"] for call in found.values()
    ]


def test_one_call_where_there_may_be_one(tokenizer: Tokenizer) -> None:
    answer, stream, _ = told_of(tokenizer, CALL * 2, tools=TOOLS, parallel_calls=False)
    assert len(calls(stream)) == 1
    assert answer.finish == "eos"
    assert len(answer.made) < len(tokenizer.encode(CALL * 2))


def test_without_tools_calls_are_text(tokenizer: Tokenizer) -> None:
    _, stream, whole = told_of(tokenizer, CALL)
    assert whole["message"]["content"] == content(stream) == CALL
    assert whole["finish_reason"] == "stop"


def test_a_call_that_is_cut_off_is_closed(tokenizer: Tokenizer) -> None:
    cut = CALL[: CALL.index("Rome") + 2]
    _, stream, whole = told_of(tokenizer, cut, reason="length", tools=TOOLS)
    assert json.loads(calls(stream)[0]["arguments"]) == {"city": "Ro"}
    assert whole["finish_reason"] == stream[-1]["choices"][0]["finish_reason"] == "length"


def test_nonsense_is_text_and_never_lost(tokenizer: Tokenizer) -> None:
    nonsense = "<tool_call>\n{nothing of the kind"
    _, stream, whole = told_of(tokenizer, nonsense, tools=TOOLS)
    assert "nothing of the kind" in whole["message"]["content"]
    assert content(stream) == whole["message"]["content"]
    assert whole["finish_reason"] == "stop"
    assert not calls(stream)


def test_a_stop_string_ends_what_is_told(tokenizer: Tokenizer) -> None:
    answer, stream, whole = told_of(tokenizer, "one two three", stop=("two",))
    assert (content(stream), whole["finish_reason"], answer.stop_word) == ("one ", "stop", "two")


@pytest.mark.parametrize(("stop", "reason"), [(("Rome",), "length"), ((), "end")])
def test_a_call_that_the_end_cuts_is_told_whole_as_in_a_stream(
    tokenizer: Tokenizer, stop: tuple[str, ...], reason: StopReason
) -> None:
    text = CALL[: CALL.index('"}}') - (0 if stop else 4)]
    answer, stream, whole = told_of(tokenizer, text, reason=reason, tools=TOOLS, stop=stop)
    (call,) = whole["message"]["tool_calls"]
    assert calls(stream)[0]["arguments"] == call["function"]["arguments"] == '{"city": ""}'
    assert stream[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "stop"
    assert answer.finish == ("word" if stop else "eos")
