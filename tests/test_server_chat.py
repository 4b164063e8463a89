"""/v1/chat/completions, field by field, over real HTTP and with a model whose answers are known."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET
from serving import Served, content, serving, user


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet) as served:
        yield served


def test_an_answer_has_all_that_llama_server_tells(server: Served) -> None:
    told = server.chat(model="alphabet")
    (choice,) = told["choices"]
    assert choice["message"] == {"role": "assistant", "content": ALPHABET}
    assert (choice["finish_reason"], choice["index"]) == ("stop", 0)
    assert told["id"].startswith("chatcmpl-")
    assert (told["object"], told["model"]) == ("chat.completion", "alphabet")
    assert told["system_fingerprint"].startswith("b")
    usage = told["usage"]
    prompt = len(server.model.tokenizer.encode_chat(_prompt("hi")))
    made = len(ALPHABET.encode()) + 1  # with the end
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, made)
    assert usage["total_tokens"] == prompt + made
    timings = told["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == prompt
    assert timings["predicted_n"] == made
    assert timings["predicted_per_second"] == pytest.approx(
        1e3 * (made - 1) / timings["predicted_ms"]
    )


def test_what_was_read_before_is_cached(server: Served) -> None:
    said = user("the same again and again")
    server.chat(messages=said)
    told = server.chat(messages=said)
    cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert 0 < cached == told["timings"]["cache_n"] < told["usage"]["prompt_tokens"]
    assert server.chat(messages=said, cache_prompt=False)["timings"]["cache_n"] == 0


def test_choices_have_cached_what_the_first_of_them_had(server: Served) -> None:
    said = user("never before was so long a text said, " * 9)
    told = server.chat(messages=said, n=3, max_tokens=1)
    assert told["timings"]["cache_n"] < 20  # what all prompts begin with
    cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == told["timings"]["cache_n"]


def test_a_stream_says_the_same_in_parts(server: Served) -> None:
    stream = server.chat_stream()
    assert stream[-1] == "[DONE]"
    parts = stream[:-1]
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert all("role" not in part["choices"][0]["delta"] for part in parts[1:])
    assert content(parts) == ALPHABET
    assert "�" not in content(parts)  # è is two tokens
    assert len(parts) == 2 + len(ALPHABET)  # the role, a character each, the end
    assert parts[-1]["choices"][0] == {"finish_reason": "stop", "index": 0, "delta": {}}
    assert parts[-1]["timings"]["predicted_n"] == len(ALPHABET.encode()) + 1
    assert {part["id"] for part in parts} == {parts[0]["id"]}
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    assert all("usage" not in part for part in parts)


def test_a_stream_begins_at_once_and_is_no_cached_thing(server: Served) -> None:
    body = {"messages": user("hi"), "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        first = next(response.iter_lines())
    assert first == ": ok"


def test_a_verbose_answer_shows_its_prompt(server: Served) -> None:
    told = server.chat(max_tokens=1, verbose=True)["__verbose"]
    assert told["prompt"] == _prompt("hi")
    assert told["generation_settings"]["n_predict"] == 1
    assert "__verbose" not in server.chat(max_tokens=1)


def test_usage_comes_last_where_it_is_asked_for(server: Served) -> None:
    stream = server.chat_stream(stream_options={"include_usage": True}, max_tokens=3)
    last = stream[-2]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert last["timings"]["predicted_n"] == 3
    assert stream[-3]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_limit_of_tokens(server: Served, name: str) -> None:
    (choice,) = server.chat(**{name: 4})["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("abcd", "length")
    assert server.refused(**{name: "many"})["param"] == name
    assert server.refused(**{name: True})["param"] == name


def test_no_limit_and_none_at_all(server: Served) -> None:
    assert server.chat(max_tokens=-1)["choices"][0]["message"]["content"] == ALPHABET
    none = server.chat(max_tokens=0)
    assert none["choices"][0]["message"]["content"] == ""
    assert none["usage"]["completion_tokens"] == 0


def test_the_context_is_a_limit_too(server: Served) -> None:
    # Digits follow each other for ever.
    told = server.chat(messages=[*user("count"), {"role": "assistant", "content": "0"}])
    (choice,) = told["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("123456789012")
    assert 512 <= told["usage"]["total_tokens"] <= 513


@pytest.mark.parametrize("stop", ["ef", ["xyz", "ef"], ["nothing", "fg", "ef"]])
def test_stop_strings(server: Served, stop: object) -> None:
    (choice,) = server.chat(stop=stop)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("abcd", "stop")
    stream = server.chat_stream(stop=stop)
    assert content(stream[:-1]) == "abcd"
    assert stream[-2]["choices"][0]["finish_reason"] == "stop"


def test_several_choices(server: Served) -> None:
    told = server.chat(n=3, max_tokens=2)
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in told["choices"]} == {"ab"}
    assert told["usage"]["completion_tokens"] == 6
    assert told["usage"]["prompt_tokens"] < 60  # of one prompt
    stream = server.chat_stream(n=2, max_tokens=2)
    for index in (0, 1):
        own = [p for p in stream[:-1] if p["choices"][0]["index"] == index]
        assert content(own) == "ab"
        assert own[-1]["choices"][0]["finish_reason"] == "length"


def test_choices_differ_and_a_seed_repeats_them(server: Served) -> None:
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 12}
    first, again = (server.chat(**hot, seed=7, n=2)["choices"] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first]
    assert texts == [choice["message"]["content"] for choice in again]
    assert texts[0] != texts[1]
    other = server.chat(**hot, seed=8)["choices"][0]["message"]["content"]
    assert other != texts[0]
    drawn = {server.chat(**hot, seed=-1)["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(drawn) > 1


def test_sampling_that_leaves_one_token_takes_it(server: Served) -> None:
    for one in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 0}):
        told = server.chat(**{"temperature": 5.0, **one}, max_tokens=5)
        assert told["choices"][0]["message"]["content"] == "abcde"


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1), ("top_p", 2), ("min_p", -0.5), ("top_k", -7), ("repeat_penalty", 0)],
)
def test_numbers_out_of_range_are_named(server: Served, field: str, value: float) -> None:
    error = server.refused(**{field: value})
    assert (error["param"], error["code"]) == (field, 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, True) for name in ("seed", "n", "top_k", "n_probs", "mirostat")],
        ("guided_json", {"type": "object"}),
        ("stop_token_ids", [1]),
        ("bad_words", ["x"]),
        ("min_tokens", 3),
        ("echo", True),
    ],
)
def test_what_cannot_be_honoured_is_refused(server: Served, field: str, value: object) -> None:
    assert server.refused(**{field: value})["param"] == field


def test_penalties_change_what_is_chosen(server: Served) -> None:
    # In "0123456789" each digit comes again after ten; penalised, it does not.
    said = [*user("count"), {"role": "assistant", "content": "0123456789"}]
    plain = server.chat(messages=said, max_tokens=5)["choices"][0]["message"]["content"]
    assert plain == "01234"
    for name in ("presence_penalty", "frequency_penalty"):
        told = server.chat(messages=said, max_tokens=5, **{name: 100.0})
        assert told["choices"][0]["message"]["content"] != plain
        told = server.chat(messages=said, max_tokens=5, **{name: 100.0}, repeat_last_n=0)
        assert told["choices"][0]["message"]["content"] == plain


@pytest.mark.parametrize(
    "bias",
    [{str(ord("b")): -100}, [[ord("b"), -100]], [["b", -100]], {"b": False}, [[ord("b"), False]]],
)
def test_logit_bias_in_both_forms(server: Served, bias: object) -> None:
    told = server.chat(logit_bias=bias, max_tokens=2)
    content = told["choices"][0]["message"]["content"]
    assert content[0] == "a"
    assert "b" not in content


def test_logit_bias_of_no_token(server: Served) -> None:
    assert server.refused(logit_bias={"99999": 1})["param"] == "logit_bias"
    assert server.refused(logit_bias={"5": True})["param"] == "logit_bias"


def test_logprobs(server: Served) -> None:
    (choice,) = server.chat(logprobs=True, top_logprobs=2, max_tokens=3)["choices"]
    told = choice["logprobs"]["content"]
    assert [each["token"] for each in told] == ["a", "b", "c"]
    for each in told:
        assert each["bytes"] == list(each["token"].encode())
        assert each["id"] == ord(each["token"])
        first, second = each["top_logprobs"]
        assert (first["token"], first["logprob"]) == (each["token"], each["logprob"])
        assert second["logprob"] < first["logprob"] < 0
    (choice,) = server.chat(logprobs=True, max_tokens=1)["choices"]
    assert choice["logprobs"]["content"][0]["top_logprobs"] == []
    assert "logprobs" not in server.chat(max_tokens=1)["choices"][0]


def test_logprobs_of_a_stream_are_of_its_text(server: Served) -> None:
    stream = server.chat_stream(logprobs=True, top_logprobs=1, stop="ef")
    told = [
        each
        for part in stream[1:-1]
        for each in (part["choices"][0].get("logprobs") or {}).get("content", [])
    ]
    assert content(stream) == "abcd"
    assert [each["token"] for each in told] == list("abcd")
    for part in stream[1:-2]:
        assert part["choices"][0]["logprobs"]["content"]
    whole = server.chat(logprobs=True, top_logprobs=1, stop="ef")
    assert whole["choices"][0]["logprobs"]["content"] == told
    assert whole["usage"]["completion_tokens"] == 6


def test_a_stream_of_nothing_has_a_role(server: Served) -> None:
    first, last, _ = server.chat_stream(max_tokens=0)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"stop": 5}, "stop: Input should be a valid string or a valid list"),
        ({"stop": [5]}, "stop.0: Input should be a valid string"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages.0.content.0: "),
        ({"messages": [{"role": "user", "content": {}}]}, "content: Input should be a valid st"),
        ({"messages": [{"content": "a"}]}, "messages.0.role: Field required"),
        ({"logit_bias": {"5": None}}, "logit_bias.5: Input should be a valid number or a valid b"),
        ({"logit_bias": [[5]]}, "logit_bias.0.1: "),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}, *user("a")]},
            "messages.0.tool_calls: a call has no function with a name",
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "function_call": {"name": "f"}}]},
            "messages.0.function_call: ",
        ),
    ],
)
def test_what_is_wrong_with_a_field_is_told_in_its_own_words(
    server: Served, wrong: dict[str, Any], told: str
) -> None:
    error = server.refused(**wrong)
    assert told in error["message"]
    assert "str:" not in error["message"]
    assert error["param"] == next(iter(wrong))


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"response_format": {"type": "json_schema", "schema": {"$ref": "#"}}}, "response_format"),
        ({"json_schema": {"$ref": "#"}}, "json_schema"),
    ],
)
def test_a_form_that_cannot_begin_is_refused_before_a_stream_does(
    server: Served, form: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        error = server.refused(**form, stream=stream)
        assert error["param"] == param
        assert "leads to itself" in error["message"]


def test_a_form_and_biases_that_leave_nothing_are_the_request_s_fault(server: Served) -> None:
    asked = {"grammar": 'root ::= "a"', "logit_bias": [["a", False]]}
    assert "nothing may come next" in server.refused(**asked)["message"]
    last = server.chat_stream(**asked)[-1]
    assert last["error"]["code"] == 400


def test_a_tool_s_name_must_be_one_that_calls_can_be_read_by(server: Served) -> None:
    for name in ('a"b', "a b", "a" * 257, " f", "<f>"):
        tool = {"type": "function", "function": {"name": name, "parameters": {}}}
        error = server.refused(tools=[tool], tool_choice="required")
        assert "tools.0: its name" in error["message"]
        assert error["param"] == "tools"


def test_logprobs_that_cannot_be(server: Served) -> None:
    assert server.refused(top_logprobs=2)["param"] == "top_logprobs"
    assert server.refused(logprobs=True, top_logprobs=1000)["param"] == "top_logprobs"


def test_ignore_eos_goes_on(server: Served) -> None:
    told = server.chat(ignore_eos=True, max_tokens=40)
    assert told["usage"]["completion_tokens"] == 40
    assert told["choices"][0]["finish_reason"] == "length"


def test_timings_of_each_token(server: Served) -> None:
    stream = server.chat_stream(timings_per_token=True, max_tokens=3)
    assert "timings" not in stream[0]
    assert [part["timings"]["predicted_n"] for part in stream[1:-1]] == [1, 2, 3, 3]


def test_progress_of_the_prompt(server: Served) -> None:
    said = user("0" * 300)
    stream = server.chat_stream(messages=said, return_progress=True, max_tokens=1)
    told = [part["prompt_progress"] for part in stream[:-1] if "prompt_progress" in part]
    assert told[0]["processed"] == told[0]["cache"] < 300
    assert told[-1]["total"] == told[-1]["processed"] > 300
    again = server.chat_stream(messages=said, return_progress=True, max_tokens=1)
    told = [part["prompt_progress"] for part in again[:-1] if "prompt_progress" in part]
    assert told[0]["processed"] == told[0]["cache"] > 300


def test_unknown_fields_are_ignored_and_known_ones_refused(server: Served) -> None:
    told = server.chat(max_tokens=1, user="me", metadata={"a": "b"}, some_new_thing=[1])
    assert told["choices"][0]["message"]["content"] == "a"
    for field, value in {
        "adaptive_target": 0.3,
        "modalities": ["text", "audio"],
        "functions": [{"name": "f"}],
        "store": True,
        "lora": [{"id": 0, "scale": 1}],
    }.items():
        assert server.refused(**{field: value})["param"] == field
    assert server.chat(
        max_tokens=1, adaptive_target=-1.0, modalities=["text"], store=False, lora=None
    )


def test_another_model_is_refused(server: Served) -> None:
    error = server.refused(model="gpt-4")
    assert error["param"] == "model"
    assert "alphabet" in error["message"]
    assert server.chat(model=None, max_tokens=1)
    assert server.chat(model="", max_tokens=1)


def test_too_long_a_prompt(server: Served) -> None:
    for stream in (False, True):
        error = server.refused(messages=user("x" * 600), stream=stream)
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == 512 < error["n_prompt_tokens"]
        assert "exceeds the available context size" in error["message"]


def _prompt(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        (user("hi"), _prompt("hi")),
        (
            [{"role": "developer", "content": "Be brief."}, *user("hi")],
            "<|im_start|>system\nBe brief.<|im_end|>\n" + _prompt("hi"),
        ),
        (
            user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),  # type: ignore[arg-type]
            _prompt("one\ntwo"),
        ),
        ([*user("hi"), {"role": "assistant", "content": "abc"}], _prompt("hi") + "abc"),
    ],
)
def test_what_messages_become(server: Served, messages: list[object], prompt: str) -> None:
    told = server.post("/apply-template", messages=messages).json()
    assert told == {"prompt": prompt}
    counted = server.post("/v1/chat/completions/input_tokens", messages=messages).json()
    tokens = server.model.tokenizer.encode_chat(prompt)
    assert counted == {"input_tokens": len(tokens), "object": "response.input_tokens"}


def test_the_last_message_of_the_assistant_is_gone_on_with(server: Served) -> None:
    said = [*user("hi"), {"role": "assistant", "content": "abc"}]
    assert server.chat(messages=said)["choices"][0]["message"]["content"] == ALPHABET[3:]
    fresh = server.chat(messages=said, continue_final_message=False)
    assert fresh["choices"][0]["message"]["content"] == ALPHABET
    both = {"continue_final_message": True, "add_generation_prompt": True}
    assert server.refused(messages=said, **both)["param"] == "continue_final_message"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "text",
        [123],
        [{}],
        [{"role": 123}],
        [{"role": "system", "content": 123}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [*user("hi"), {}],
        [*user("hi"), *2 * [{"role": "assistant", "content": "a"}]],
        user([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),  # type: ignore[arg-type]
        user([{"type": "input_audio", "input_audio": {"data": ""}}]),  # type: ignore[arg-type]
        user([{"type": "text"}]),  # type: ignore[arg-type]
    ],
)
def test_messages_that_are_none(server: Served, messages: object) -> None:
    assert server.refused(messages=messages)["param"] == "messages"


def test_a_body_that_is_no_request(server: Served) -> None:
    for data in (b"", b"{", b"[]", b"1", b'{"messages": NaN}', b"\xff", b"[" * 100_000):
        response = server.http.post("/v1/chat/completions", content=data)
        assert response.status_code == 400, data
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_other_paths_and_methods(server: Served) -> None:
    assert server.get("/nothing").json()["error"]["code"] == 404
    response = server.get("/v1/chat/completions")
    assert (response.status_code, response.json()["error"]["code"]) == (405, 405)


def test_templates_get_what_a_request_gives_them(alphabet: Path) -> None:
    template = (
        "{{ messages[0].content }}|{{ reasoning_effort }}|{{ enable_thinking }}|{{ extra }}"
        "{{ raise_exception('no ' + messages[0].content) if extra == 'fail' }}"
    )
    with serving(alphabet, chat_template=template) as server:
        assert server.prompt() == "hi|||"
        assert server.prompt(reasoning_effort="high") == "hi|high|True|"
        assert server.prompt(reasoning_effort="none") == "hi||False|"
        assert server.prompt(chat_template_kwargs={"extra": 1, "messages": []}) == "hi|||1"
        for name in ("self", "messages", "special", "now", "names", "not a name"):
            assert server.prompt(chat_template_kwargs={name: 1}).startswith("hi|")
        error = server.refused("/v1/chat/completions", chat_template_kwargs={"extra": "fail"})
        assert "no hi" in error["message"]
        assert json.dumps(template)[1:20] not in error["message"]


def test_a_number_of_too_many_digits_is_told_without_words_of_python(server: Served) -> None:
    data = b'{"messages": [], "seed": ' + b"9" * 5000 + b"}"
    answer = server.http.post("/v1/chat/completions", content=data)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "the body is not JSON: a number has too many digits"
