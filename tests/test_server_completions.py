"""/v1/completions, /completion, /tokenize, and what the server says of itself."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET
from serving import Served, serving


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, names=("alphabet", "another"), parallel=3) as served:
        yield served


def texts(server: Served, path: str = "/v1/completions", **body: object) -> list[str]:
    response = server.post(path, **body)
    assert response.status_code == 200, response.text
    return [choice["text"] for choice in response.json()["choices"]]


def test_one_prompt_and_several(server: Served) -> None:
    ids = [ord("a"), ord("b")]
    assert texts(server, prompt="ab", max_tokens=3) == ["cde"]
    assert texts(server, prompt=ids, max_tokens=3) == ["cde"]
    assert texts(server, prompt=["ab", "x"], max_tokens=2) == ["cd", "yz"]
    assert texts(server, prompt=[ids, [ord("0")]], max_tokens=2) == ["cd", "12"]
    assert texts(server, prompt=[*ids, "xy"], max_tokens=1) == ["z"]
    assert texts(server, prompt=["ab", "x"], n=2, max_tokens=1) == ["c", "c", "y", "y"]


@pytest.mark.parametrize(
    "prompt", ["", [], [[]], [1.5], [True], {"a": 1}, [99999], [{"multimodal_data": ["x"]}], None]
)
def test_prompts_that_are_none(server: Served, prompt: object) -> None:
    for path in ("/v1/completions", "/completion"):
        assert server.refused(path, prompt=prompt)["param"] == "prompt"


def test_usage_is_of_all_prompts(server: Served) -> None:
    told = server.post("/v1/completions", prompt=["ab", "x"], n=2, max_tokens=2).json()
    assert told["object"] == "text_completion"
    assert (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]) == (3, 8)


def test_echo(server: Served) -> None:
    assert texts(server, prompt=["ab", "x"], max_tokens=2, echo=True) == ["abcd", "xyz"]
    stream = server.stream("/v1/completions", prompt="ab", max_tokens=2, echo=True)
    assert "".join(part["choices"][0]["text"] for part in stream[:-1]) == "abcd"
    assert server.refused("/v1/completions", prompt="a", echo=True, logprobs=1)["param"] == "echo"


@pytest.mark.parametrize("field", [{"suffix": "x"}, {"best_of": 2}])
def test_fields_that_are_not_to_be_had(server: Served, field: dict[str, object]) -> None:
    assert server.refused("/v1/completions", prompt="a", **field)["param"] in field


def test_logprobs_in_both_forms(server: Served) -> None:
    body = {"prompt": "a", "max_tokens": 3, "logprobs": 2}
    (choice,) = server.post("/v1/completions", **body).json()["choices"]
    told = choice["logprobs"]
    assert told["tokens"] == ["b", "c", "d"]
    assert told["text_offset"] == [0, 1, 2]
    assert [max(top, key=top.__getitem__) for top in told["top_logprobs"]] == ["b", "c", "d"]
    assert told["token_logprobs"] == [each["logprob"] for each in told["content"]]
    stream = server.stream("/v1/completions", **body)
    offsets = [part["choices"][0]["logprobs"]["text_offset"] for part in stream[:-1]]
    assert offsets == [[0], [1], [2], []]


def test_a_stream_of_text(server: Served) -> None:
    stream = server.stream(
        "/v1/completions", prompt="x", max_tokens=2, stream_options={"include_usage": True}
    )
    assert [part["choices"][0]["text"] for part in stream[:-2]] == ["y", "z", ""]
    assert stream[-2]["usage"]["completion_tokens"] == 2
    assert stream[-1] == "[DONE]"


def test_llama_servers_own_words(server: Served) -> None:
    told = server.post("/completion", prompt="a\n", n_predict=3, return_tokens=True).json()
    assert told["content"] == "abc"
    assert told["tokens"] == list(b"abc")
    assert (told["stop"], told["stop_type"], told["truncated"]) == (True, "limit", False)
    assert (told["tokens_predicted"], told["tokens_evaluated"]) == (3, 2)
    assert told["generation_settings"]["n_predict"] == 3
    assert told["prompt"] == "a\n"
    word = server.post("/completions", prompt="a", stop=["de"]).json()
    assert (word["content"], word["stop_type"], word["stopping_word"]) == ("bc", "word", "de")
    assert server.post("/completion", prompt="a").json()["stop_type"] == "eos"
    full = server.post("/completion", prompt="0").json()
    assert (full["stop_type"], full["truncated"]) == ("limit", True)
    several = server.post("/completion", prompt=["a", "x"], n_predict=1).json()
    assert [each["content"] for each in several] == ["b", "y"]


def test_llama_servers_stream(server: Served) -> None:
    *parts, last = server.stream("/completion", prompt="a", n_predict=3)
    assert [part["content"] for part in parts] == ["b", "c", "d"]
    assert [part["tokens"] for part in parts] == [[98], [99], [100]]
    assert not any(part["stop"] for part in parts)
    assert last["stop"]
    assert last["content"] == ""
    assert last["timings"]["predicted_n"] == 3


def test_llama_servers_settings(server: Served) -> None:
    body = {"prompt": "a", "n_predict": 1, "repeat_penalty": 1.5, "ignore_eos": True, "seed": 3}
    settings = server.post("/completion", **body).json()["generation_settings"]
    assert (settings["repeat_penalty"], settings["seed"]) == (1.5, 3)
    assert settings["ignore_eos"] is True
    ends = server.model.tokenizer.end_ids
    assert settings["logit_bias"] == [{"bias": None, "token": id} for id in ends]
    fields = ["content", "generation_settings/n_predict", "nothing"]
    told = server.post("/completion", **body, response_fields=fields).json()
    assert told == {"content": "b", "generation_settings/n_predict": 1}


def test_all_samplers_are_told_as_they_are(server: Served) -> None:
    asked: dict[str, Any] = {
        "dry_multiplier": 0.5,
        "dry_base": 2.0,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": -1,
        "dry_sequence_breakers": ["x", "\n"],
        "top_n_sigma": 1.5,
        "typical_p": 0.9,
        "xtc_probability": 0.25,
        "xtc_threshold": 0.2,
        "dynatemp_range": 0.5,
        "dynatemp_exponent": 2.0,
        "mirostat_tau": 3.0,
        "mirostat_eta": 0.2,
        "samplers": ["top_k", "temperature", "xtc"],
        "logit_bias": [{"bias": 1.0, "token": 7}],
    }
    given = {**asked, "logit_bias": [[7, 1.0]], "samplers": ["top_k", "temp", "xtc", "adaptive_p"]}
    settings = server.post("/completion", prompt="a", n_predict=1, **given).json()
    assert {key: settings["generation_settings"][key] for key in asked} == asked
    own = server.get("/props").json()["default_generation_settings"]["params"]
    assert (own["mirostat"], own["xtc_probability"], own["samplers"][0]) == (0, 0.0, "penalties")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("samplers", ["top_k", "infill"], "'infill'"),
        ("mirostat", 3, "0 to 2"),
        ("xtc_probability", 1.5, "0 to 1"),
        ("dry_base", 0.5, "1 or more"),
        ("dry_sequence_breakers", ["x"] * 65, "at most 64"),
    ],
)
def test_settings_that_samplers_cannot_have(
    server: Served, field: str, value: object, told: str
) -> None:
    error = server.refused("/completion", prompt="a", **{field: value})
    assert error["param"] == field
    assert told in error["message"]


@pytest.mark.parametrize(
    "asked",
    [
        {"mirostat": 2, "mirostat_tau": 0.0},
        {"xtc_probability": 1.0, "xtc_threshold": 0.5},
        {"samplers": "kt", "top_k": 1},
    ],
)
def test_samplers_choose_in_a_server_too(server: Served, asked: dict[str, Any]) -> None:
    """The model is sure of the alphabet, so that none of these can choose anything else."""
    made = server.post("/completion", prompt="a", n_predict=3, temperature=1.0, seed=1, **asked)
    assert made.json()["content"] == "bcd"


def test_dry_takes_a_repetition_for_one(server: Served) -> None:
    asked: dict[str, Any] = {"prompt": "abcdxabcdxabc", "n_predict": 1, "temperature": 0}
    assert server.post("/completion", **asked).json()["content"] == "d"
    dry = {"dry_multiplier": 100.0}
    assert server.post("/completion", **asked, **dry).json()["content"] != "d"
    broken = {**dry, "dry_sequence_breakers": ["bc"]}
    assert server.post("/completion", **asked, **broken).json()["content"] == "d"


def test_llama_servers_chances(server: Served) -> None:
    told = server.post("/completion", prompt="a", n_predict=2, n_probs=2).json()
    chances = told["completion_probabilities"]
    assert [each["token"] for each in chances] == ["b", "c"]
    assert all(len(each["top_logprobs"]) == 2 for each in chances)
    assert "completion_probabilities" not in server.post("/completion", prompt="a").json()


def test_tokens_of_text_and_back(server: Served) -> None:
    text = "hi è <|im_end|>"
    ids = server.post("/tokenize", content=text).json()["tokens"]
    assert ids[-1] == server.model.tokenizer.token_id("<|im_end|>")
    assert server.post("/detokenize", tokens=ids).json() == {"content": text}
    plain = server.post("/tokenize", content=text, parse_special=False).json()["tokens"]
    assert len(plain) > len(ids)
    pieces = server.post("/tokenize", content="hè", with_pieces=True).json()["tokens"]
    assert pieces == [
        {"id": ord("h"), "piece": "h"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA8, "piece": [0xA8]},
    ]
    assert server.post("/tokenize", content=["a", 98]).json() == {"tokens": [97, 98]}
    assert server.refused("/detokenize", tokens=[10**9])["param"] == "tokens"
    assert server.refused("/tokenize", content=[{}])["code"] == 400


def test_what_the_server_says_of_itself(server: Served) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/v1/health").status_code == 200
    (model,) = server.get("/v1/models").json()["data"]
    assert (model["id"], model["aliases"]) == ("alphabet", ["alphabet", "another"])
    assert model["meta"]["n_ctx"] == 512
    assert server.get("/v1/models/another").json()["id"] == "alphabet"
    assert server.get("/v1/models/third").status_code == 404
    props = server.get("/props").json()
    assert props["total_slots"] == 3
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert props["default_generation_settings"]["params"]["temperature"] == 0
    assert "im_start" in props["chat_template"]
    assert props["model_path"] == "alphabet.gguf"
    assert server.post("/v1/chat/completions", messages=[], model="another").status_code == 400


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/embedding", "/reranking"])
def test_what_is_not_here(server: Served, path: str) -> None:
    assert server.refused(path, 501, input="x")["type"] == "not_supported_error"


def test_the_description_is_of_these_endpoints(server: Served) -> None:
    told = server.get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    assert "post" in told["paths"]["/v1/chat/completions"]
    schemas = told["components"]["schemas"]
    assert "messages" in schemas["ChatRequest"]["properties"]
    references = {
        part.split('"')[0] for part in json.dumps(told).split("#/components/schemas/")[1:]
    }
    assert references <= set(schemas)


def metrics(server: Served) -> dict[str, float]:
    lines = server.get("/metrics").text.splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"
    }


def test_metrics_count_what_was_done(server: Served) -> None:
    before = metrics(server)
    server.post("/completion", prompt="unheard of", n_predict=7)
    after = metrics(server)
    made = "moestream_generated_tokens_total"
    assert after[made] - before[made] == 7
    assert after["llamacpp:tokens_predicted_total"] == after[made]
    read = "moestream_prompt_tokens_read_total"
    assert after[read] - before[read] == len("unheard of")
    assert after["moestream_requests_running"] == 0
    ended = 'moestream_sequences_total{ended="length"}'
    assert after[ended] - before[ended] == 1


def test_metrics_count_prompts_that_begin_as_others(server: Served) -> None:
    server.post("/completion", prompt="begins as no other", n_predict=1)
    before = metrics(server)
    server.post("/completion", prompt="begins as no other did", n_predict=1)
    after = metrics(server)
    for name, more in (("hits", 1), ("hit_tokens", len("begins as no other"))):
        name = f"moestream_prefix_{name}_total"
        assert after[name] - before[name] == more


def test_metrics_of_streamed_experts(alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moestream.streaming.options import StreamingOptions

    with serving(alphabet) as server:
        assert "moestream_hit_rate" not in metrics(server)
        engine = server.model.engine
        engine.stream(engine.plan_memory("300M"), StreamingOptions())
        server.post("/completion", prompt="a", n_predict=5)
        # It goes through what the scheduler changes meanwhile.
        monkeypatch.delattr(type(engine.streaming), "stats")
        told = metrics(server)
        assert "moestream_pinned_bytes" in told
        asked = told["moestream_decode_hits_total"] + told["moestream_decode_misses_total"]
        assert asked > 0
        assert told["moestream_hit_rate"] == told["moestream_decode_hits_total"] / asked


def test_slots_show_what_runs_and_who_leaves_frees_his(alphabet: Path) -> None:
    with serving(alphabet, context=1 << 16, parallel=2) as server:
        body = {"prompt": "0", "stream": True}
        with server.http.stream("POST", "/completion", json=body) as response:
            chunks = response.iter_bytes()  # which leaves once it is forgotten
            next(chunks)
            busy = _slots(server, 1)
            assert [slot["is_processing"] for slot in busy] == [True, False]
            assert server.get("/slots?fail_on_no_slot=1").status_code == 200
        assert not any(slot["is_processing"] for slot in _slots(server, 0))
        assert metrics(server)['moestream_sequences_total{ended="interrupted"}'] == 1


def test_who_leaves_before_the_answer_frees_his_place_too(alphabet: Path) -> None:
    with serving(alphabet, context=1 << 16) as server:
        thread = threading.Thread(target=_leave, args=(server,))
        thread.start()
        _slots(server, 1)
        thread.join()
        assert not any(slot["is_processing"] for slot in _slots(server, 0))


def _leave(server: Served) -> None:
    import httpx2

    with pytest.raises(httpx2.TimeoutException):
        server.http.post("/completion", json={"prompt": "0"}, timeout=0.3)


def _slots(server: Served, busy: int) -> list[dict[str, object]]:
    """The slots, once so many are busy."""
    for _ in range(100):
        slots: list[dict[str, object]] = server.get("/slots").json()
        if sum(bool(slot["is_processing"]) for slot in slots) == busy:
            return slots
        time.sleep(0.02)
    raise AssertionError(f"{slots}, expected {busy} to be busy")


def test_a_model_without_a_template_continues_text(tmp_path: Path) -> None:
    from alphabet_model import write_alphabet_model

    path = write_alphabet_model(tmp_path / "plain.gguf", chat=False)
    with serving(path) as server:
        assert texts(server, prompt="a", max_tokens=2) == ["bc"]
        assert "chat template" in server.refused()["message"]
        assert server.get("/props").json()["chat_template"] == ""


def test_what_cannot_be_computed_is_told_and_hurts_nobody_else(tmp_path: Path) -> None:
    from alphabet_model import write_alphabet_model

    path = write_alphabet_model(tmp_path / "broken.gguf", broken_at="k")
    with serving(path) as server:
        error = server.refused("/v1/completions", 500, prompt="a")
        assert str(tmp_path) not in json.dumps(error)
        assert error["type"] == "server_error"
        stream = server.stream("/v1/completions", prompt="a")
        assert stream[-1]["error"]["type"] == "server_error"
        assert "".join(p["choices"][0]["text"] for p in stream[:-1]) == ALPHABET[1:11]
        assert texts(server, prompt="a", max_tokens=2) == ["bc"]
        assert any("not finite" in line for line in server.warnings)


def test_a_stream_is_never_silent_for_long(alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestream.server.sse.PING_S", 0.05)
    with serving(alphabet, parallel=1, context=1 << 16) as server:
        body = {"prompt": "0", "stream": True}
        with server.http.stream("POST", "/completion", json=body) as first:
            lines = first.iter_lines()
            assert any(line == ": ping" for line in lines)
            # One that waits has read nothing yet.
            waiting = {"prompt": "abc", "stream": True}
            with server.http.stream("POST", "/completion", json=waiting) as second:
                assert any(line == ": reading 0/3" for line in second.iter_lines())
