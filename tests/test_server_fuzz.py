"""No value of any field makes the server fail: it answers, or says what is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Served, serving, user

from moestream.server.anthropic.schemas import CountRequest, MessagesRequest
from moestream.server.openai.responses_schema import ResponsesRequest
from moestream.server.openai.schemas import ChatRequest, CompletionRequest, LlamaRequest
from moestream.server.sampling import NEUTRAL
from moestream.server.text import DetokenizeRequest, TokenizeRequest

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, -7, 0.5, 1e308, -1e308, 2**31, 2**63, 2**70, -(2**70)),
    *("", "x", "none", "auto", "\u0000", "9" * 50, "\ud800", "required"),
    *([], [1], ["x"], [[]], [[1, 2]], [["x", 1]], [{}], [None], [2**70], [-1], [True], [["x", {}]]),
    *({}, {"a": 1}, {"1": 1e308}, {"type": "x"}, {"type": "json_schema", "json_schema": []}),
    *({"type": "function", "function": {}}, {"type": "object", "$ref": "#"}, {"include_usage": 1}),
    *([{"type": "function", "function": {"name": "f", "parameters": 5}}],),
    *([{"role": "user", "content": [{}]}], [{"role": "tool", "tool_calls": [{}], "content": "x"}]),
)
ENDPOINTS: dict[str, tuple[type, dict[str, Any]]] = {
    "/v1/chat/completions": (ChatRequest, {"messages": user("hi"), "max_tokens": 2}),
    "/v1/responses": (ResponsesRequest, {"input": "hi", "max_output_tokens": 2}),
    "/v1/messages": (MessagesRequest, {"messages": user("hi"), "max_tokens": 2}),
    "/v1/messages/count_tokens": (CountRequest, {"messages": user("hi")}),
    "/apply-template": (ChatRequest, {"messages": user("hi")}),
    "/v1/completions": (CompletionRequest, {"prompt": "a", "max_tokens": 2}),
    "/completion": (LlamaRequest, {"prompt": "a", "max_tokens": 2}),
    "/tokenize": (TokenizeRequest, {"content": "a"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [1]}),
}


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, context=64) as served:
        yield served


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_field_takes_any_value_without_harm(server: Served, path: str, every: int) -> None:
    model, sound = ENDPOINTS[path]
    names = [*model.model_fields, *(NEUTRAL if "completion" in path else ())]  # type: ignore[attr-defined]
    for number, name in enumerate(names):
        for value in VALUES[number % every :: every]:
            try:
                answer = server.post(path, **{**sound, name: value})
            except UnicodeEncodeError:
                continue  # which the client does not send
            assert answer.status_code in (200, 400), (name, value, answer.text)
            if answer.status_code == 400:
                more = set() if path.startswith("/v1/messages") else {"param", "code"}
                assert set(answer.json()["error"]) >= {"message", "type"} | more
    assert not server.warnings
