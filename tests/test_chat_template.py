import json
import lzma
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import TokenType
from vocabulary_files import write_bytes_vocabulary

from moestream.chat.named import TEMPLATES
from moestream.chat.template import ChatTemplate
from moestream.errors import TemplateError
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

GOLDEN = json.loads(
    lzma.decompress((Path(__file__).parent / "data" / "chat" / "templates.json.xz").read_bytes())
)
USER = {"role": "user", "content": "Hi"}
CHATML = [("<|im_start|>", TokenType.CONTROL), ("<|im_end|>", TokenType.CONTROL)]


def render(source: str, **names: Any) -> str:
    return ChatTemplate.from_source(source).render([USER], **names)


# --- against transformers and llama.cpp ---


@pytest.mark.parametrize("name", GOLDEN["templates"])
def test_transformers_text(name: str) -> None:
    golden = GOLDEN["templates"][name]
    template = ChatTemplate.from_source(golden["source"], **GOLDEN["tokens"])
    today = datetime.fromisoformat(GOLDEN["today"])
    for chat, expected in golden["expected"].items():
        if expected is None:
            with pytest.raises(TemplateError):
                template.render(**GOLDEN["chats"][chat])
        else:
            text = template.render(**GOLDEN["chats"][chat], now=today)
            assert text == expected, chat


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_templates_are_llama_cpps(name: str) -> None:
    eos = GOLDEN["eos_of_names"].get(name, "</s>")
    template = ChatTemplate.from_source(TEMPLATES[name], eos_token=eos)
    for chat, expected in GOLDEN["names"][name].items():
        assert template.render(**GOLDEN["chats"][chat]) == expected, chat


# --- the environment ---


def test_blocks_leave_no_space_and_loops_can_be_left() -> None:
    source = (
        "{% for i in range(9) %}\n    {% if i == 2 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}"
    )
    assert render(source) == "0\n1\n"


def test_json_is_not_html() -> None:
    assert render("{{ x | tojson }}", x={"b": "<é'&>", "a": 1}) == '{"b": "<é\'&>", "a": 1}'
    assert render("{{ x | tojson(indent=1, sort_keys=true) }}", x={"b": 2, "a": 1}) == (
        '{\n "a": 1,\n "b": 2\n}'
    )
    assert render("{{ x | tojson(true, separators=(',', ':')) }}", x=["é", 1]) == '["\\u00e9",1]'


def test_generation_marks_and_dates_and_helpers() -> None:
    assert render("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c") == "abHic"
    assert render("{{ strftime_now('%Y')|int > 2000 }}") == "True"
    assert render("{% set ns = namespace(self=1) %}{{ dict(a=ns.self) }}") == "{'a': 1}"


def test_tools_and_documents_are_none_and_other_names_pass() -> None:
    source = "{{ tools is none }}{{ documents is none }}{{ bos_token }}{{ deep }}"
    assert ChatTemplate.from_source(source, bos_token="<s>").render([], deep=3) == "TrueTrue<s>3"


# --- failures ---


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing.more }}", "nothing"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% set ns = namespace(__class__=1) %}", "underscore"),
        ("{% set ns = namespace(a=1) %}{% set ns.__class__ = 1 %}", "underscore"),
        ("{{ dict.fromkeys([1]) }}", "fromkeys"),
        ("{% include 'x' %}", "no loader"),
        ("{{ 'a' | nonsense }}", "wrong in line 1: No filter named 'nonsense'"),
        ("a\n{% if %}", "wrong in line 2"),
        (f"{{{{ {'(' * 5000}1{')' * 5000} }}}}", "cannot be compiled: maximum recursion depth"),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, "cannot be compiled: too many statically"),
    ],
)
def test_all_failures_are_template_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render(source)


# --- which template ---


def load(path: Path, **keys: Any) -> tuple[GGUFFile, Tokenizer]:
    file = GGUFFile.open(write_bytes_vocabulary(path / "v.gguf", **keys))
    return file, Tokenizer.from_gguf(file)


def test_the_files_own_template_comes_first(tmp_path: Path) -> None:
    keys = {"tokenizer.chat_template": "{{ bos_token }}!{{ eos_token }}", "bos_token_id": 257}
    template = ChatTemplate.from_gguf(*load(tmp_path, specials=CHATML, **keys))
    assert template.render([USER]) == "<|im_start|>!"
    assert "own" in template.origin


def test_without_one_chatml_if_the_vocabulary_has_it(tmp_path: Path) -> None:
    template = ChatTemplate.from_gguf(*load(tmp_path, specials=CHATML))
    assert template.render([USER]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert "chatml" in template.origin


@pytest.mark.parametrize("specials", [[], CHATML[:1]])
def test_without_any_it_says_what_to_pass(
    tmp_path: Path, specials: list[tuple[str, TokenType]]
) -> None:
    with pytest.raises(TemplateError, match=r"pass --chat-template .*chatml.*llama3"):
        ChatTemplate.from_gguf(*load(tmp_path, specials=specials))


def test_a_name_or_a_file_goes_before_the_files_own(tmp_path: Path) -> None:
    model = load(tmp_path, **{"tokenizer.chat_template": "own", "eos_token_id": 97})
    named = ChatTemplate.from_gguf(*model, override="deepseek2")
    assert named.render([USER, {"role": "assistant", "content": "Yo"}]).endswith(
        "Yoa" + "Assistant:"
    )
    path = tmp_path / "mine.jinja"
    path.write_text("mine: {{ messages[0].content }} é", encoding="utf-8")
    assert ChatTemplate.from_gguf(*model, override=str(path)).render([USER]) == "mine: Hi é"


def test_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    model = load(tmp_path)
    with pytest.raises(TemplateError, match=r"'lama3'.*did you mean llama3"):
        ChatTemplate.from_gguf(*model, override="lama3")
    with pytest.raises(TemplateError, match=r"cannot be read"):
        ChatTemplate.from_gguf(*model, override=str(tmp_path))
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(TemplateError, match=r"cannot be read"):
        ChatTemplate.from_gguf(*model, override=str(tmp_path / "latin"))


# --- turns ---


def asked(turns: int) -> list[dict[str, str]]:
    """A conversation that ends with the user's message of this number."""
    messages = [USER]
    for number in range(1, turns):
        answer = {"role": "assistant", "content": f"Answer {number}."}
        messages += [answer, {"role": "user", "content": f"Question {number}?"}]
    return messages


@pytest.mark.parametrize("name", GOLDEN["templates"])
def test_a_turn_changes_nothing_before_the_last_answer(name: str) -> None:
    """So that all but the last turn need not be read again: what precedes it is as it was."""
    template = ChatTemplate.from_source(GOLDEN["templates"][name]["source"], **GOLDEN["tokens"])
    today = datetime.fromisoformat(GOLDEN["today"])
    second, third = (template.render(asked(turns), now=today) for turns in (2, 3))
    end = second.index("Question 1?") + len("Question 1?")
    assert third.startswith(second[:end])
