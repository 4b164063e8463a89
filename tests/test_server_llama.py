"""What llama-server's own tests found, held here: each answer is the one that it gives."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET
from serving import Served, content, serving, user

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Rome", "Oslo"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "time")
]
NO_SYSTEM = (
    "{% for message in messages %}"
    "{{ raise_exception('no system') if message.role == 'system' }}"
    "[{{ message.role }}]{{ message.content }}{% endfor %}"
)
HALF = len(ALPHABET.encode()) - 1
"""So many tokens end in the middle of è."""


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, context=4096) as served:
        yield served


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": user("0" * 300)}),
        ("/v1/completions", {"prompt": "0" * 300}),
        ("/completion", {"prompt": "0" * 300}),
    ],
)
def test_timings_come_with_the_progress_of_a_prompt(
    server: Served, path: str, asked: dict[str, Any]
) -> None:
    asked = {**asked, "max_tokens": 1, "return_progress": True, "cache_prompt": False}
    plain = server.stream(path, **asked)
    told = [part for part in plain if "prompt_progress" in part]
    assert told
    assert not any("timings" in part for part in told)
    timed = server.stream(path, **asked, timings_per_token=True)
    parts = [part for part in timed if "prompt_progress" in part]
    first, last = parts[0]["timings"], parts[-1]["timings"]
    assert (first["prompt_n"], first["prompt_ms"], first["predicted_n"]) == (0, 0.0, 0)
    assert last["prompt_n"] == parts[-1]["prompt_progress"]["total"]
    assert last["prompt_ms"] > 0
    assert last["prompt_per_second"] == pytest.approx(1e3 * last["prompt_n"] / last["prompt_ms"])
    again = server.stream(path, **{**asked, "cache_prompt": True}, timings_per_token=True)
    again = server.stream(path, **{**asked, "cache_prompt": True}, timings_per_token=True)
    parts = [part for part in again if "prompt_progress" in part]
    assert parts[0]["timings"]["cache_n"] == parts[0]["prompt_progress"]["cache"] > 0


def test_half_a_character_is_left_out(server: Served) -> None:
    said = ALPHABET[:-1]
    whole = server.chat(max_tokens=HALF)
    assert whole["choices"][0]["message"]["content"] == said
    assert whole["usage"]["completion_tokens"] == HALF
    assert content(server.chat_stream(max_tokens=HALF)[:-1]) == said
    told = server.post("/completion", prompt="#", n_predict=HALF + 1).json()
    assert told["content"] == f"\n{said}"
    stream = server.stream("/completion", prompt="#", n_predict=HALF + 1)
    assert "".join(part["content"] for part in stream) == f"\n{said}"
    stream = server.stream("/v1/completions", prompt="#", max_tokens=HALF + 1)[:-1]
    assert "".join(part["choices"][0]["text"] for part in stream) == f"\n{said}"


def test_the_token_that_ends_an_answer_counts(alphabet: Path) -> None:
    with serving(alphabet) as server:
        told = server.chat()
        made = len(ALPHABET.encode())
        assert told["usage"]["completion_tokens"] == made + 1
        took = told["timings"]
        assert took["predicted_n"] == made + 1
        assert took["predicted_per_token_ms"] == pytest.approx(took["predicted_ms"] / made)
        assert server.chat(max_tokens=made)["usage"]["completion_tokens"] == made
        told = server.post("/completion", prompt="#", n_predict=100).json()
        assert (told["tokens_predicted"], told["stop_type"]) == (made + 2, "eos")
        text = server.get("/metrics").text
        assert server.chat(stop="c")["usage"]["completion_tokens"] == 3
    total = made + 1 + made + made + 2
    assert f"llamacpp:tokens_predicted_total {float(total)}" in text.splitlines()


def test_each_choice_of_a_stream_has_its_timings(server: Served) -> None:
    parts = server.chat_stream(n=2, max_tokens=2)[:-1]
    ends = [part for part in parts if part["choices"][0]["finish_reason"]]
    assert [part["timings"]["predicted_n"] for part in ends] == [2, 2]


def test_metrics_of_passes_by_llama_servers_names(alphabet: Path) -> None:
    with serving(alphabet) as server:
        server.chat(n=2, max_tokens=20)
        text = server.get("/metrics").text
    lines = text.splitlines()
    told = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    values = {name: float(value) for name, _, value in told}
    assert 20 <= values["llamacpp:n_decode_total"] <= 40
    assert 1 < values["llamacpp:n_busy_slots_per_decode"] <= 2
    assert 20 < values["llamacpp:n_tokens_max"] < 100
    for name in ("n_decode_total", "n_tokens_max", "spec_decode_num_drafts_total"):
        assert f"# TYPE llamacpp:{name} counter" in lines
        assert any(line.startswith(f"# HELP llamacpp:{name} ") for line in lines)
    assert values["llamacpp:spec_decode_num_draft_tokens_total"] == 0
    assert values["llamacpp:spec_decode_num_accepted_tokens_total"] == 0


def test_parts_of_a_message_that_is_gone_on_with(server: Served) -> None:
    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd"}]
    said = [*user("hi"), {"role": "assistant", "content": parts}]
    told = server.post("/apply-template", messages=said).json()["prompt"]
    assert told.endswith("<|im_start|>assistant\nab\n\ncd")


def test_templates_are_told_the_date(alphabet: Path) -> None:
    with serving(alphabet, chat_template="{{ date_string }}|{{ datetime }}") as server:
        days = [date.today()]
        told = server.post("/apply-template", messages=user("hi")).json()["prompt"]
        days.append(date.today())
        assert told in {f"{day:%d %b %Y}|{day:%b %d %Y}" for day in days}
        kwargs = {"date_string": "once"}
        told = server.post("/apply-template", messages=user(""), chat_template_kwargs=kwargs).json()
        assert told["prompt"].startswith("once|")


def test_a_form_is_enforced_though_tools_may_be_called(server: Served) -> None:
    form = {"response_format": {"type": "regex", "pattern": "<tool_call>x"}}
    (choice,) = server.chat(tools=TOOLS, **form)["choices"]
    assert choice["message"] == {"role": "assistant", "content": "<tool_call>x"}
    assert choice["finish_reason"] == "stop"


def test_a_template_without_tools_is_told_of_them(server: Served) -> None:
    def prompt(messages: list[Any], **more: Any) -> str:
        told = server.post("/apply-template", messages=messages, **more).json()["prompt"]
        assert isinstance(told, str)
        return told

    told = prompt(user("hi"), tools=TOOLS)
    head, system, asked = told.split("<|im_start|>", 2)
    assert (head, asked) == ("", "user\nhi<|im_end|>\n<|im_start|>assistant\n")
    named = [line for line in system.splitlines() if '"name": "weather"' in line]
    assert json.loads(named[0]) == TOOLS[0]
    assert system.count('"name": "time"') == 1
    told = prompt([{"role": "system", "content": "Be brief."}, *user("hi")], tools=TOOLS)
    assert told.count("<|im_start|>system") == 1
    assert told.startswith("<|im_start|>system\nBe brief.\n\n")
    assert prompt(user("hi"), tools=TOOLS, tool_choice="none") == prompt(user("hi"))


def test_a_template_without_tools_is_told_of_calls_and_results(server: Served) -> None:
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    calls = [{"id": each, "type": "function", "function": function} for each in "ab"]
    said = [
        *user("hi"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": "rain"},
    ]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    for tools in (TOOLS, None):
        told = server.post("/apply-template", messages=said, tools=tools).json()["prompt"]
        assert f"<|im_start|>assistant\n{call}\n{call}<|im_end|>" in told
        results = "<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response>"
        assert f"<|im_start|>user\n{results}<|im_end|>" in told


def test_a_template_that_knows_no_system_message(alphabet: Path) -> None:
    with serving(alphabet, chat_template=NO_SYSTEM) as server:
        told = server.post("/apply-template", messages=user("hi"), tools=TOOLS).json()["prompt"]
        assert told.startswith("[user]You may call functions.")
        assert told.endswith("\n\nhi")
        said = [{"role": "system", "content": "x"}, *user("hi")]
        assert "no system" in server.refused(messages=said, tools=TOOLS)["message"]


@pytest.mark.parametrize("seed", range(3))
def test_a_call_is_enforced_without_a_template_of_tools(server: Served, seed: int) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "temperature": 1.0, "top_k": 0, "seed": seed}
    (choice,) = server.chat(**asked, tool_choice="required", max_tokens=400)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        assert call["function"]["name"] in ("weather", "time")
        assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
    named = {"type": "function", "function": {"name": "time"}}
    stream = server.chat_stream(**asked, tool_choice=named, parallel_tool_calls=False)
    deltas = [part["choices"][0]["delta"].get("tool_calls") for part in stream[:-1]]
    (begun,) = [each[0] for each in deltas if each and "id" in each[0]]
    assert begun["function"]["name"] == "time"
    arguments = "".join(each[0]["function"]["arguments"] for each in deltas if each)
    assert json.loads(arguments)["city"] in ("Rome", "Oslo")
    assert stream[-2]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("most", [50_000, None])
def test_slots_tell_what_is_left(alphabet: Path, most: int | None) -> None:
    with serving(alphabet, parallel=2, context=1 << 16) as server:
        body = {"prompt": "0", "stream": True, "n_predict": most}
        with server.http.stream("POST", "/completion", json=body) as response:
            lines = response.iter_lines()  # kept: it would close the response
            assert any(line.startswith("data: ") for line in lines)
            busy, idle = server.get("/slots").json()
        assert (busy["is_processing"], idle["is_processing"]) == (True, False)
        (told,) = busy["next_token"]
        assert told["n_decoded"] > 0
        left = -1 if most is None else most - told["n_decoded"]
        assert told["n_remain"] == left
