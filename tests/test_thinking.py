"""How much a model is to think: the same words in generate, chat and serve."""

import json
from pathlib import Path

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import run
from serving import serving

from moestream.chat.reasoning import Markers
from moestream.chat.settings import Settings
from moestream.chat.thinking import Thinking, opens_reasoning
from moestream.server.model import Defaults

MARKERS = Markers("<think>", "</think>")
THINKS = (
    "{{ messages[-1].content }}{{ extra }}"
    "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{{ '\\n' }}"
)
"""The model recites after a new line: as reasoning, or as the answer."""


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("thinks") / "thinker.gguf"
    return write_alphabet_model(path, template=THINKS, follows={">": "a"})


def generate(model: Path, *arguments: str) -> tuple[str, str]:
    done = run("generate", model, "-p", "hello", "-s", "1", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_generate_tells_reasoning_from_the_answer(thinker: Path) -> None:
    out, errors = generate(thinker)
    assert out == ""
    assert errors.splitlines()[1] == ALPHABET
    assert generate(thinker, "-q") == ("", "")
    assert generate(thinker, "-q", "--reasoning", "show") == (f"{ALPHABET}\n", "")
    out, errors = generate(thinker, "--reasoning", "hide")
    assert ALPHABET not in out + errors
    told = json.loads(generate(thinker, "--json")[0])
    assert (told["text"], told["reasoning"]) == ("", ALPHABET)


def test_generate_without_thinking(thinker: Path) -> None:
    assert generate(thinker, "-q", "--reasoning-effort", "none")[0] == f"{ALPHABET}\n"
    off = json.dumps({"enable_thinking": False, "extra": "!", "messages": []})
    told = json.loads(generate(thinker, "--json", "--chat-template-kwargs", off)[0])
    assert (told["text"], told["reasoning"]) == (ALPHABET, "")
    assert told["prompt_tokens"] == len("hello!\n")


def test_reasoning_that_a_template_always_opens_is_closed(thinker: Path, tmp_path: Path) -> None:
    always = tmp_path / "always.jinja"
    always.write_text("{{ messages[-1].content }}<think>")
    flags = ("-q", "--chat-template", str(always), "--reasoning-effort")
    assert generate(thinker, *flags, "low")[0] == ""
    assert generate(thinker, *flags, "none")[0] == f"{ALPHABET}\n"
    lines = b"hello\n/think off\nhello\n"
    done = run("chat", thinker, "--chat-template", always, "-q", "--reasoning", "hide", stdin=lines)
    assert done.stdout == f"{ALPHABET}\n"


def test_raw_text_has_no_template_to_tell(thinker: Path) -> None:
    done = run("generate", thinker, "--raw", "-p", "a", "--reasoning-effort", "low")
    assert done.returncode == 2
    assert "--raw uses no chat template" in done.stderr
    told = json.loads(run("generate", thinker, "--raw", "-p", "<think>", "--json").stdout)
    assert (told["text"], told["reasoning"]) == (ALPHABET, "")


@pytest.mark.parametrize("text", ["3", "[]", "{", '{"a": 1'])
def test_what_is_no_json_object_is_refused(thinker: Path, text: str) -> None:
    done = run("generate", thinker, "-p", "hi", "--chat-template-kwargs", text)
    assert done.returncode == 2
    assert "expected a JSON object" in done.stderr


def test_think_in_a_chat(thinker: Path) -> None:
    lines = "/think\n/think off\nhello\n/think high\n/think\nhello\n/think auto\n/think maybe\n"
    done = run("chat", thinker, "--reasoning", "hide", stdin=lines.encode())
    assert done.stdout == f"{ALPHABET}\n"
    told = [
        line for line in done.stderr.splitlines() if "think" in line and "in memory" not in line
    ]
    assert told == [
        "the model thinks as its template has it",
        "the model does not think",
        "the model thinks, with high effort",
        "the model thinks, with high effort",
        "the model thinks as its template has it",
        "error: /think maybe: expected one of on, off, auto, low, medium, high",
    ]


def test_think_where_a_model_has_no_words_for_it(alphabet: Path) -> None:
    done = run("chat", alphabet, stdin=b"/think off\n")
    assert "the model has no words for thinking, so this changes nothing" in done.stderr


def test_a_server_has_a_default_of_it(alphabet: Path) -> None:
    template = "{{ reasoning_effort }}|{{ enable_thinking }}|{{ thinking }}|{{ extra }}"
    thinking = Thinking("none", {"extra": 1})
    with serving(alphabet, chat_template=template, defaults=Defaults(thinking=thinking)) as server:
        assert server.prompt() == "|False|False|1"
        assert server.prompt(reasoning_effort="high") == "high|True|True|1"
        own = {"enable_thinking": True, "extra": 2}
        assert server.prompt(chat_template_kwargs=own) == "|True|False|2"


def test_what_templates_are_told() -> None:
    assert Thinking().template_values() == {}
    off = {"enable_thinking": False, "thinking": False, "thinking_mode": "disabled"}
    assert Thinking("none").template_values() == off
    values = Thinking("low", {"thinking": False, "tools": 1}).template_values()
    on = {"enable_thinking": True, "thinking_mode": "enabled", "thinking_effort": "low"}
    assert values == on | {"thinking": False, "reasoning_effort": "low"}
    assert Thinking("medium").template_values()["thinking_effort"] == "high"
    assert Thinking("none").ended("hi<think>\n", MARKERS) == "hi<think>\n</think>"
    assert Thinking("none").ended("hi", MARKERS) == "hi"
    assert Thinking("low").ended("hi<think>\n", MARKERS) == "hi<think>\n"
    assert opens_reasoning("hi<think>\n ", MARKERS)
    assert not opens_reasoning("hi<think>\n ", None)


def test_it_is_a_setting_of_a_chat() -> None:
    settings = Settings()
    settings.set("reasoning-effort", "none")
    settings.set("chat-template-kwargs", '{"x": 1}')
    assert settings.thinking == Thinking("none", {"x": 1})
    shown = dict(settings.shown())
    assert (shown["reasoning-effort"], shown["chat-template-kwargs"]) == ("none", '{"x": 1}')
