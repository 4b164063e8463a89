"""/v1/messages: Anthropic's own client against the server, and its answers field by field."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from pydantic import BaseModel
from serving import WEATHER, Served, serving, user

from moestream.server.anthropic.prompts import without_noise

KEY = "a key of ours"
SAID = user("hi")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}(({{ m.reasoning_content }})){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.role == 'tool' %} of {{ m.name }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% for t in tools or [] %}<tool_call>{{ t | tojson }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = TEMPLATE + "{% if enable_thinking %}<think>\n{% endif %}"
TOOL: Any = {
    "name": "weather",
    "description": "Tells the weather",
    "input_schema": WEATHER,
}
BILLING = "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;"


class Answer(BaseModel):
    yes: bool
    count: Literal[1, 2]


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, keys=(KEY,), context=1024, chat_template=TEMPLATE) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=server.url, max_retries=0) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_went_wrong(server: Served) -> Iterator[None]:
    server.warnings.clear()
    yield
    assert not [each for each in server.warnings if "billing" not in each]


def test_an_answer(client: anthropic.Anthropic) -> None:
    told = client.messages.create(model="alphabet", max_tokens=99, messages=SAID)
    (block,) = told.content
    assert (block.type, block.text) == ("text", ALPHABET)
    assert (told.role, told.type, told.model) == ("assistant", "message", "alphabet")
    assert (told.stop_reason, told.stop_sequence) == ("end_turn", None)
    assert told.id.startswith("msg_")
    assert told.usage.output_tokens == len(ALPHABET.encode()) + 1  # with the end


def test_usage_tells_what_was_read_before(client: anthropic.Anthropic) -> None:
    said: Any = user("the very same once more")
    counted = client.messages.count_tokens(model="alphabet", messages=said).input_tokens
    for again in (False, True):
        usage = client.messages.create(model="alphabet", max_tokens=1, messages=said).usage
        assert usage.cache_read_input_tokens is not None
        assert usage.input_tokens + usage.cache_read_input_tokens == counted
        if again:
            assert usage.input_tokens < 5 < usage.cache_read_input_tokens


def test_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="alphabet", max_tokens=99, messages=SAID) as stream:
        assert "".join(stream.text_stream) == ALPHABET
        told = stream.get_final_message()
    whole = client.messages.create(model="alphabet", max_tokens=99, messages=SAID)
    assert [each.to_dict() for each in told.content] == [each.to_dict() for each in whole.content]
    assert told.stop_reason == "end_turn"
    assert told.usage.output_tokens == whole.usage.output_tokens
    total = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert told.usage.input_tokens + (told.usage.cache_read_input_tokens or 0) == total


def test_the_events_of_a_stream(server: Served) -> None:
    stream = [each for each in _stream(server, max_tokens=2) if each["type"] != "ping"]
    assert [each["type"] for each in stream] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert stream[0]["message"]["content"] == []
    assert stream[1] == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    assert stream[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert stream[-2]["usage"]["output_tokens"] == 2
    nothing = _stream(server, max_tokens=0)
    types = ["message_start", "message_delta", "message_stop"]
    assert [each["type"] for each in nothing if each["type"] != "ping"] == types
    body = {"messages": SAID, "max_tokens": 1, "stream": True}
    text = server.post("/v1/messages", **body).text
    assert "event: message_start\ndata: {" in text


def test_a_long_prompt_is_heard_of(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestream.server.passes.CHUNK_TOKENS", 32)
    monkeypatch.setattr("moestream.server.passes._TELL_S", 0)
    monkeypatch.setattr("moestream.server.reading.CHUNK_TOKENS", 32)
    stream = _stream(server, messages=user("far" * 100), max_tokens=1)
    assert [each["type"] for each in stream[:2]] == ["message_start", "ping"]


def test_stop_sequences(client: anthropic.Anthropic) -> None:
    for stream in (False, True):
        told = _made(client, stream, max_tokens=99, messages=SAID, stop_sequences=["x", "ef"])
        assert told.content[0].text == "abcd"
        assert (told.stop_reason, told.stop_sequence) == ("stop_sequence", "ef")


def test_the_context_ends_too(server: Served) -> None:
    told = _ask(server, messages=[*user("count"), {"role": "assistant", "content": "0"}])
    assert told["stop_reason"] == "model_context_window_exceeded"
    assert told["content"][0]["text"].startswith("123456789012")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called(client: anthropic.Anthropic, stream: bool) -> None:
    asked: dict[str, Any] = {"max_tokens": 700, "tools": [TOOL]}
    one = {"disable_parallel_tool_use": True}
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        told = _made(client, stream, messages=SAID, **asked, tool_choice={**choice, **one})
        assert told.stop_reason == "tool_use"
        (call,) = told.content
        assert (call.type, call.name) == ("tool_use", "weather")
        assert call.input["city"] in ("Rome", "Oslo")
        assert 1 <= call.input["days"] <= 9
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sun"}
    more = [{"role": "assistant", "content": told.content}, {"role": "user", "content": [result]}]
    answered = _made(client, stream, messages=[*SAID, *more], **asked)
    assert answered.content[0].text == ALPHABET


def test_a_call_that_is_cut_off_is_an_object(client: anthropic.Anthropic) -> None:
    for stream in (False, True):
        choice = {"type": "any"}
        told = _made(
            client, stream, messages=SAID, max_tokens=300, tools=[TOOL], tool_choice=choice
        )
        assert told.stop_reason == "max_tokens"
        assert told.content[0].name == "weather"
        assert isinstance(told.content[0].input, dict)


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(alphabet_thinking: Served, stream: bool) -> None:
    with anthropic.Anthropic(api_key="x", base_url=alphabet_thinking.url) as client:
        on = {"type": "enabled", "budget_tokens": 1024}
        told = _made(client, stream, messages=SAID, max_tokens=20, thinking=on)
        assert [each.to_dict() for each in told.content] == [
            {"type": "thinking", "thinking": "abc", "signature": ""},
            {"type": "text", "text": "012345678"},
        ]


def test_a_form_that_is_parsed(client: anthropic.Anthropic) -> None:
    told = client.messages.parse(
        model="alphabet", max_tokens=200, messages=SAID, output_format=Answer
    )
    assert isinstance(told.parsed_output, Answer)


def test_what_messages_become(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    encode = server.model.tokenizer.encode_chat
    seen = lambda text: (prompts.append(str(text)), encode(text))[1]  # noqa: E731
    monkeypatch.setattr(server.model.tokenizer, "encode_chat", seen)
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
    said = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "so"}]
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "sun"}, {"type": "text", "text": "all day"}],
    }
    _count(
        server,
        system=[{"type": "text", "text": "be kind"}, {"type": "text", "text": "and brief"}],
        messages=[
            *SAID,
            {"role": "assistant", "content": [*said, {"type": "redacted_thinking"}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "thanks"}]},
        ],
    )
    (prompt,) = prompts
    assert prompt == (
        "<|im_start|>system\nbe kind\nand brief<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n"
        '<|im_start|>assistant\n((hm))so<tool_call>{"name": "weather", '
        '"arguments": {"city": "Rome"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nsun\nall day of weather<|im_end|>\n"
        "<|im_start|>user\nthanks<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_is_counted(server: Served, alphabet_thinking: Served) -> None:
    few = _count(server)
    assert _count(server, system="be kind") > few
    assert _count(server, tools=[TOOL]) > few
    assert _count(server, tools=[TOOL], tool_choice={"type": "none"}) == few
    few = _count(alphabet_thinking)
    assert _count(alphabet_thinking, thinking={"type": "enabled", "budget_tokens": 9}) > few
    assert _count(alphabet_thinking, thinking={"type": "disabled"}) == few


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "not 'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content.0: there is no"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "x"}]}
                        ],
                    }
                ]
            },
            "messages.0.content.0.content.0: this model reads text, not 'x'",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tools": [{"input_schema": {}}]}, "name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}, "tools": [TOOL]}, "tool_choice"),
        ({"top_p": 7}, "top_p"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"model": "other"}, "other"),
        ({"output_config": {"format": {"type": "sound"}}}, "sound"),
    ],
)
def test_what_is_refused(server: Served, wrong: dict[str, Any], told: str) -> None:
    for stream in (False, True):
        body = {"messages": SAID, "max_tokens": 2, "stream": stream, **wrong}
        answer = server.post("/v1/messages", **body)
        assert answer.status_code == 400, answer.text
        body = answer.json()
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        assert told in body["error"]["message"]


def test_errors_are_those_that_the_client_knows(
    client: anthropic.Anthropic, server: Served
) -> None:
    with anthropic.Anthropic(api_key="wrong", base_url=server.url, max_retries=0) as wrong:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            wrong.messages.create(model="alphabet", max_tokens=1, messages=SAID)
        assert caught.value.type == "authentication_error"
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model="alphabet", max_tokens=1, messages=user("x" * 1200))  # type: ignore[arg-type]
    assert refused.value.type == "invalid_request_error"
    for answer in (server.get("/v1/messages"), server.post("/v1/messages/other")):
        assert answer.json()["type"] == "error"
    assert "type" not in server.get("/v1/other").json()


def test_a_model_that_breaks_ends_its_stream_with_an_error(broken: Served) -> None:
    events = _stream(broken)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "api_error"


def test_noise_is_cut_out_and_told_once(server: Served, alphabet: Path) -> None:
    plain, given = "You are kind.", f"{BILLING}You are kind."
    few = _count(server, system=plain)
    for number in range(2):
        header = BILLING.replace("a5145", f"b{number}145")
        blocks = [{"type": "text", "text": header}, {"type": "text", "text": plain}]
        assert _count(server, system=blocks) == few
        assert _count(server, system=header + plain) == few
    assert [("billing" in each) for each in server.warnings] == [True]
    with serving(alphabet, keep_noise=True) as other:
        assert _count(other, system=given) > _count(other, system=plain)
        assert not other.warnings


@pytest.mark.parametrize(
    ("system", "cut"),
    [
        (BILLING, ""),
        (f"{BILLING}You = me;", "You = me;"),
        (f"{BILLING}\n\nYou", "You"),
        ("x-anthropic-billing-header: cc_version=2; cch=1\nYou", "You"),
        (f" {BILLING}", f" {BILLING}"),
        (f"You. {BILLING}", f"You. {BILLING}"),
        ([], []),
        ([{"type": "text", "text": BILLING}], []),
        ([{"type": "text"}, {"type": "text", "text": BILLING}],) * 2,
    ],
)
def test_what_noise_is(system: Any, cut: Any) -> None:
    assert without_noise(system) == cut


@pytest.fixture(scope="module")
def alphabet_thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Says ``abc</think>0123...`` where its prompt has opened the reasoning."""
    path = tmp_path_factory.mktemp("thinking") / "thinking.gguf"
    follows = dict(pairwise("c</think>0"))
    with serving(write_alphabet_model(path, follows=follows), chat_template=THINKING) as served:
        yield served


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("broken") / "broken.gguf"
    with serving(write_alphabet_model(path, broken_at="c")) as served:
        yield served


def _made(client: anthropic.Anthropic, stream: bool, **asked: Any) -> Any:
    """The same message, whole or gathered by the client from its stream."""
    if not stream:
        return client.messages.create(model="alphabet", **asked)
    with client.messages.stream(model="alphabet", **asked) as told:
        return told.get_final_message()


def _ask(server: Served, **body: Any) -> Any:
    answer = server.post("/v1/messages", **{"messages": SAID, "max_tokens": 9999, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _stream(server: Served, **body: Any) -> list[Any]:
    return server.stream("/v1/messages", **{"messages": SAID, "max_tokens": 99, **body})


def _count(server: Served, **body: Any) -> int:
    answer = server.post("/v1/messages/count_tokens", **{"messages": SAID, **body})
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.text)
    assert list(told) == ["input_tokens"]
    return int(told["input_tokens"])


def test_a_form_by_its_former_name_holds(server: Served) -> None:
    schema = {"type": "integer", "minimum": 7, "maximum": 7}
    asked = {"max_tokens": 9, "messages": user("hi")}
    told = server.post(
        "/messages", **asked, output_format={"type": "json_schema", "schema": schema}
    )
    assert told.json()["content"] == [{"type": "text", "text": "7"}]
    refused = server.post("/messages", **asked, output_format={"type": "json_schema"})
    assert refused.json()["error"]["message"] == "output_config.format: there is no schema"
