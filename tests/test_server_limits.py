"""What one request may ask for is limited: none ends the process, or makes the others wait."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import pytest
from serving import Served, serving, until, user

from moestream.grammars import Grammars
from moestream.server import connection, listener, running
from moestream.server.openai import completions
from moestream.server.sampling import SamplingFields


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, context=1 << 20, parallel=2, waiting=6) as served:
        yield served


def _references(count: int) -> dict[str, Any]:
    """A schema whose references lead to each other, and at last to a number."""
    links = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(count)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{count}": {"type": "integer"}}}


def _nested(links: int, levels: int) -> dict[str, Any]:
    """One whose references are each within lists of lists."""
    made: dict[str, Any] = {f"a{links}": {"type": "integer"}}
    for n in range(links):
        inner: dict[str, Any] = {"$ref": f"#/$defs/a{n + 1}"}
        for _ in range(levels):
            inner = {"items": inner}
        made[f"a{n}"] = inner
    return {"$ref": "#/$defs/a0", "$defs": made}


def _rules(count: int, rule: str = "%s", last: str = '"x"') -> str:
    chain = [f"a{n} ::= {rule % f'a{n + 1}'}" for n in range(count)]
    return "\n".join(["root ::= a0", *chain, f"a{count} ::= {last}"])


def _wide(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"k{n}": {"type": "integer"} for n in range(count)}}


def _tool(parameters: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize(
    "schema",
    [_references(3000), _nested(40, 80), _wide(4000), {"enum": ["x" * 999] * 300}],
    ids=["references", "nested", "wide", "long"],
)
def test_schemas_that_would_end_the_process_are_refused(
    server: Served, schema: dict[str, Any]
) -> None:
    asked = {"json_schema": schema}, {"tools": [_tool(schema)], "tool_choice": "required"}
    for body in asked:
        error = server.refused(**body)
        assert "expected at most" in error["message"]
        assert error["param"] in ("json_schema", "tools")


def test_schemas_of_a_usual_size_are_taken(server: Served) -> None:
    for schema in (_references(200), _nested(10, 20), _wide(300)):
        assert server.chat(json_schema=schema, max_tokens=1)
    tools = [_tool(_wide(9), f"f{n}") for n in range(3)]
    assert server.chat(tools=tools, tool_choice="required", max_tokens=1)
    many = [_tool(_wide(200), f"f{n}") for n in range(30)]
    assert "objects" in server.refused(tools=many, tool_choice="required")["message"]


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        (_rules(4000), "rules"),
        (_rules(2000, '"y" %s | a0'), "rules"),
        (_rules(300, "(" * 20 + '"y" %s' + ")?" * 20), "levels"),
        (_rules(1, "(" * 200 + "%s" + ")" * 200), "brackets"),
        ('root ::= "' + "x" * 70_000 + '"', "bytes"),
    ],
    ids=["chain", "recursive", "levels", "brackets", "long"],
)
def test_grammars_that_would_end_the_process_are_refused(
    server: Served, grammar: str, why: str
) -> None:
    error = server.refused("/completion", prompt="a", grammar=grammar)
    assert why in error["message"]
    assert error["param"] == "grammar"


def test_grammars_of_a_usual_size_are_taken(server: Served) -> None:
    for grammar in (_rules(490), _rules(99, '"y" %s root | "z"'), _rules(90, '(("y" %s)? "z")*')):
        answer = server.post("/completion", prompt="a", max_tokens=1, grammar=grammar)
        assert answer.status_code == 200, answer.text
    long = {"type": "regex", "pattern": "a" * 70_000}
    assert "bytes" in server.refused(response_format=long)["message"]


def test_no_more_sequences_than_there_could_be_places_for(server: Served) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": ["a"] * 9}),
        ("/completion", {"prompt": ["a"] * 20_000, "n": 64}),
        ("/v1/completions", {"prompt": ["a"] * 3, "n": 3}),
        ("/v1/chat/completions", {"n": 9}),
    ):
        began = time.perf_counter()
        error = server.refused(path, **body)
        assert "at most 8 in all" in error["message"]
        assert error["param"] == ("n" if "chat" in path else "prompt")
        assert time.perf_counter() - began < 2
    answer = server.post("/v1/completions", prompt=["a", "b"], n=3, max_tokens=1)
    assert [each["text"] for each in answer.json()["choices"]] == list("bbbccc")


def test_what_choices_have_in_common_is_made_once(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for name, of in (("sampling", SamplingFields), ("json_schema", Grammars)):
        real = getattr(of, name)

        def counted(*given: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            made.append(name)
            return real(*given, **more)

        monkeypatch.setattr(of, name, counted)
    schema = {"enum": ["xyz"]}
    texts = server.post("/v1/completions", prompt="a", n=3, json_schema=schema).json()["choices"]
    assert [each["text"] for each in texts] == ['"xyz"'] * 3
    chat = server.chat(n=3, json_schema=schema)["choices"]
    assert [each["message"]["content"] for each in chat] == ['"xyz"'] * 3
    assert sorted(made) == ["json_schema"] * 2 + ["sampling"] * 2


@pytest.mark.parametrize("stop", [["x"] * 65, ["x" * 257], "x" * 257], ids=["many", "long", "one"])
def test_stop_strings_are_few_and_short(server: Served, stop: object) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/completion"):
        body = {} if "chat" in path else {"prompt": "a"}
        error = server.refused(path, stop=stop, **body)
        assert "at most 64 texts of at most 256 characters" in error["message"]
        assert error["param"] == "stop"
    body = {"messages": user("hi"), "max_tokens": 1, "stop_sequences": stop}
    answer = server.post("/v1/messages", **body)
    assert answer.status_code == 400


def test_as_many_stop_strings_as_clients_send(server: Served) -> None:
    stop = [*("\n" + "n" * 250 + f"{n}:" for n in range(62)), "", "e"]
    answer = server.post("/completion", prompt="a", stop=stop, max_tokens=9).json()
    assert (answer["content"], answer["stopping_word"]) == ("bcd", "e")


def test_biases_are_no_more_than_tokens(server: Served) -> None:
    most = server.model.tokenizer.vocab_size
    asked = {"prompt": "a", "max_tokens": 1}
    every = [[token, 0.5] for token in range(most)]
    assert server.post("/completion", **asked, logit_bias=every).json()["content"] == "b"
    more = {f"{'0' * (n + 1)}1": 1 for n in range(most + 1)}
    for bias, why in (
        ([["x", 1]] * (most + 1), "tokens"),
        (more, "tokens"),
        ([[98, 1], [98, 2]], "twice"),
        ({"98": 1, "098": 2}, "twice"),
    ):
        error = server.refused("/completion", **asked, logit_bias=bias)
        assert why in error["message"]
        assert error["param"] == "logit_bias"


@pytest.mark.parametrize("limit", ["time", "news"])
def test_a_client_that_reads_nothing_loses_its_place(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    if limit == "time":
        monkeypatch.setattr(connection, "LONGEST_SEND_S", 0.3)
    else:
        monkeypatch.setattr(running, "_MOST_UNHEARD", 50)
    with serving(alphabet, context=1 << 16, parallel=1, waiting=1) as server:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            stuck.connect(("127.0.0.1", server.listener.port))
            data = json.dumps({"prompt": "0", "stream": True, "n_probs": 100}).encode()
            head = f"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
            stuck.sendall(head.encode() + b"\r\n\r\n" + data)
            activity = server.listener.state.activity
            until(lambda: activity.sequences)
            until(lambda: not activity.sequences)
            assert activity.totals.usage.generated_tokens < 1 << 15
            if limit == "time":
                until(lambda: not server.listener.state._admitted)
        assert server.post("/completion", prompt="a", max_tokens=1).json()["content"] == "b"


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (1, "parameters is no object"),
        ([1], "parameters is no object"),
        (True, "parameters is no object"),
        ({"properties": 1}, "properties is no object"),
        ({"properties": [1]}, "properties is no object"),
        ({"properties": {"k": None}}, "properties.k is no object"),
        ({"properties": {"k": {"enum": 1}}}, "properties.k.enum is no list"),
        ({"properties": {"k": {"items": {"anyOf": {"a": 1}}}}}, "k.items.anyOf is no list"),
        ({"properties": {"k": {"anyOf": [1]}}}, "k.anyOf.0 is no object"),
        ({"properties": {"k": {}}, "required": 1}, "required is no list"),
        ({"properties": {"k": {}}, "required": [["k"]]}, "required is no list"),
        ({"properties": {"k": {"type": 1}}}, "k.type is no type"),
        ({"properties": {"k": {"type": "array", "minItems": "x"}}}, "minItems is no count"),
        ({"$defs": {"k": 1}}, "$defs.k is no object"),
    ],
)
def test_schemas_that_make_no_sense_are_refused(server: Served, parameters: Any, why: str) -> None:
    for choice in ("auto", "required"):
        error = server.refused(tools=[_tool(parameters)], tool_choice=choice, stream=True)
        assert why in error["message"]
        assert error["param"] == "tools"
    tool = {"type": "function", "name": "f", "parameters": parameters}
    assert why in server.refused("/v1/responses", input="a", tools=[tool])["message"]
    tool = {"name": "f", "input_schema": parameters}
    body = {"messages": user("hi"), "max_tokens": 1, "tools": [tool]}
    assert why in server.refused("/v1/messages", **body)["message"]


def test_schemas_that_make_sense_are_taken(server: Served) -> None:
    fields = {
        "a": True,
        "b": {"items": [{"type": "null"}]},
        "enum": {"enum": [1, {}], "type": None},
    }
    for parameters in ({"type": "object", "properties": fields, "required": None}, {}, None):
        assert server.chat(tools=[_tool(parameters)], max_tokens=1)


@pytest.mark.parametrize("ends", [True, False], ids=["prepared", "never"])
def test_what_is_being_prepared_when_the_server_ends(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    begun, go_on, prepared = Event(), Event(), completions.text_tasks

    def slow(*given: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return prepared(*given)

    monkeypatch.setattr(completions, "text_tasks", slow)
    monkeypatch.setattr(listener, "_LONGEST_END_S", 4 if ends else 0.2)
    monkeypatch.setattr(listener, "_LONGEST_WORK_S", 0.2)
    with serving(alphabet, context=1 << 16) as server, ThreadPoolExecutor() as threads:
        try:
            asked = threads.submit(server.post, "/v1/completions", prompt="0")
            assert begun.wait(5)
            ending = threads.submit(server.listener.close)
            until(lambda: server.listener.state.phase == "closing")
            if ends:
                go_on.set()
                assert asked.result(timeout=5).status_code == 503
            ending.result(timeout=5)
        finally:
            go_on.set()


def test_tokenizing_keeps_nobody_waiting(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    of = type(server.model.tokenizer)
    threads: set[str] = set()
    for name in ("encode", "encode_chat", "decode"):
        real = getattr(of, name)

        def noted(*given: Any, real: Any = real, **more: Any) -> Any:
            threads.add(current_thread().name)
            return real(*given, **more)

        monkeypatch.setattr(of, name, noted)
    for path, body in (
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [97]}),
        ("/v1/messages/count_tokens", {"messages": user("hi")}),
        ("/v1/chat/completions/input_tokens", {"messages": user("hi")}),
    ):
        assert server.post(path, **body).status_code == 200
    assert threads
    assert "http" not in threads
