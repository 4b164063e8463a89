"""/v1/responses: OpenAI's own client against the server, and its answers field by field."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from pydantic import BaseModel
from serving import Served, serving, user
from test_server_anthropic import TEMPLATE, THINKING
from test_server_anthropic import TOOL as ANTHROPIC_TOOL

SAID = user("hi")
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": ANTHROPIC_TOOL["input_schema"],
    "strict": True,
}


class Answer(BaseModel):
    yes: bool
    count: Literal[1, 2]


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, context=1024, chat_template=TEMPLATE) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="x", base_url=f"{server.url}/v1", max_retries=0) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_went_wrong(server: Served) -> Iterator[None]:
    yield
    assert not server.warnings


def test_an_answer(client: openai.OpenAI) -> None:
    told = client.responses.create(model="alphabet", input="hi", instructions="be kind")
    assert told.output_text == ALPHABET
    assert told.id.startswith("resp_")
    assert (told.object, told.status, told.model) == ("response", "completed", "alphabet")
    (item,) = told.output
    assert item.id is not None
    assert item.id.startswith("msg_")
    assert (item.type, item.status) == ("message", "completed")
    assert told.usage is not None
    assert told.usage.output_tokens == len(ALPHABET.encode()) + 1  # with the end
    assert told.usage.total_tokens == told.usage.input_tokens + told.usage.output_tokens
    again = client.responses.create(model="alphabet", input="hi", instructions="be kind")
    assert again.usage is not None
    assert again.usage.input_tokens_details.cached_tokens > 10


def test_nothing_is_stored_whatever_is_asked(server: Served) -> None:
    for store in ({}, {"store": True}, {"store": False}):
        assert _ask(server, **store)["store"] is False


def test_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="alphabet", input="hi") as stream:
        kinds = [each.type for each in stream]
        told = stream.get_final_response()
    assert told.output_text == ALPHABET
    assert kinds.count("response.output_text.delta") == len(ALPHABET)
    whole = client.responses.create(model="alphabet", input="hi")
    assert whole.usage is not None
    assert told.usage is not None
    assert told.usage.output_tokens == whole.usage.output_tokens


def test_the_events_of_a_stream(server: Served) -> None:
    stream = _stream(server, max_output_tokens=1)
    assert [each["type"].removeprefix("response.") for each in stream] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    assert [each["sequence_number"] for each in stream] == list(range(9))
    last = stream[-1]["response"]
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["output"][0]["content"][0]["text"] == "a"
    assert {each["item_id"] for each in stream if "item_id" in each} == {last["output"][0]["id"]}
    assert {each["response"]["id"] for each in stream if "response" in each} == {last["id"]}
    answer = server.post("/v1/responses", input="hi", stream=True, max_output_tokens=1)
    assert "event: response.created\ndata: {" in answer.text


def test_what_llama_server_tells_besides(server: Served) -> None:
    stream = _stream(server, timings_per_token=True, return_progress=True, input="again" * 50)
    how_far = [each["prompt_progress"] for each in stream if "prompt_progress" in each]
    assert how_far[-1]["processed"] == how_far[-1]["total"]
    deltas = [each for each in stream if each["type"].endswith("delta")]
    assert all("predicted_per_second" in each["timings"] for each in deltas)
    assert stream[-1]["timings"]["predicted_n"] == len(ALPHABET.encode()) + 1  # with the end


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called(client: openai.OpenAI, stream: bool) -> None:
    for choice in ("required", {"type": "function", "name": "weather"}):
        told = _made(client, stream, input=SAID, tool_choice=choice)
        (call,) = told.output
        assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
        assert call.id.startswith("fc_")
        arguments = json.loads(call.arguments)
        assert arguments["city"] in ("Rome", "Oslo")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    answered = _made(client, stream, input=[*SAID, *told.output, output])
    assert answered.output_text == ALPHABET


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_an_item(tmp_path: Path, stream: bool) -> None:
    path = write_alphabet_model(tmp_path / "thinking.gguf", follows=dict(pairwise("c</think>0")))
    with (
        serving(path, chat_template=THINKING) as served,
        openai.OpenAI(api_key="x", base_url=f"{served.url}/v1") as client,
    ):
        told = _made(
            client,
            stream,
            input="hi",
            tools=[],
            max_output_tokens=20,
            extra_body={"chat_template_kwargs": {"enable_thinking": True}},
        )
        reasoning, said = told.output
        assert (reasoning.type, reasoning.content[0].text) == ("reasoning", "abc")
        assert (said.type, said.content[0].text) == ("message", "012345678")
        assert (reasoning.status, said.status) == ("completed", "incomplete")
        assert told.usage.output_tokens_details.reasoning_tokens == 3


def test_forms(client: openai.OpenAI, server: Served) -> None:
    told = client.responses.parse(model="alphabet", input="hi", text_format=Answer)
    assert isinstance(told.output_parsed, Answer)
    format = {"type": "json_schema", "name": "x", "schema": {"const": "xxx"}}
    assert _ask(server, text={"format": format})["output"][0]["content"][0]["text"] == '"xxx"'
    said = _ask(server, text={"format": {"type": "json_object"}}, max_output_tokens=1)
    assert said["output"][0]["content"][0]["text"] in "{ \n"


def test_what_items_become(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    encode = server.model.tokenizer.encode_chat
    seen = lambda text: (prompts.append(str(text)), encode(text))[1]  # noqa: E731
    monkeypatch.setattr(server.model.tokenizer, "encode_chat", seen)
    part = {"type": "output_text", "text": "so", "annotations": []}
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a":1}'}
    output = [{"type": "input_text", "text": "sun"}, {"type": "input_text", "text": "all day"}]
    reasoning = {"type": "reasoning_text", "text": "hm"}
    _ask(
        server,
        max_output_tokens=1,
        instructions="be kind",
        input=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs", "summary": [], "content": [reasoning]},
            {"type": "message", "role": "assistant", "content": [part]},
            call,
            {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": output},
            {"type": "function_call_output", "call_id": "c2", "output": "rain"},
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"},
            {"role": "user", "content": "thanks"},
        ],
    )
    called = '<tool_call>{"name": "weather", "arguments": {"a": 1}}</tool_call>'
    (prompt,) = prompts
    assert prompt == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>system\nbe brief<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n"
        f"<|im_start|>assistant\n((hm))so{called}{called}<|im_end|>\n"
        "<|im_start|>tool\nsun\nall day of weather<|im_end|>\n"
        "<|im_start|>tool\nrain of weather<|im_end|>\n"
        "<|im_start|>user\nthanks<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format: there is no schema"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0: role is 'robot'"),
        ({"input": [{"role": "user"}]}, "input.0: there is no content"),
        ({"input": [{"role": "user", "content": [5]}]}, "list of objects"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ({"input": [{"type": "function_call", "name": "x", "call_id": "x"}]}, "no arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "no call_id"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"text": {"format": {"type": "sound"}}}, "sound"),
        ({"top_p": 7}, "top_p"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"model": "other"}, "other"),
        ({"input": "x" * 1200}, "context"),
    ],
)
def test_what_is_refused(server: Served, wrong: dict[str, Any], told: str) -> None:
    for stream in (False, True):
        answer = server.post("/v1/responses", **{"input": "hi", "stream": stream, **wrong})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert told in error["message"] + str(error["param"])


def test_a_model_that_breaks_ends_its_stream_so(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "broken.gguf", broken_at="c")
    with serving(path) as served:
        last = _stream(served)[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"]["code"] == "server_error"


def _made(client: openai.OpenAI, stream: bool, **asked: Any) -> Any:
    """The same response, whole or as a stream's last event has it."""
    asked = {"model": "alphabet", "tools": [TOOL], "parallel_tool_calls": False, **asked}
    if not stream:
        return client.responses.create(**asked)
    *events, last = list(client.responses.create(**asked, stream=True))
    done = [each.item for each in events if each.type == "response.output_item.done"]
    assert [each.id for each in done] == [each.id for each in last.response.output]
    for item in done:
        deltas = [
            e.delta for e in events if getattr(e, "item_id", "") == item.id if "delta" in e.type
        ]
        told = item.arguments if item.type == "function_call" else item.content[0].text
        assert "".join(deltas) == told
    return last.response


def _ask(server: Served, **body: Any) -> Any:
    answer = server.post("/v1/responses", **{"input": "hi", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _stream(server: Served, **body: Any) -> list[Any]:
    return server.stream("/v1/responses", **{"input": "hi", **body})
