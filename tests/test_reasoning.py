from pathlib import Path

import pytest
from gguf.constants import TokenType
from vocabulary_files import write_bytes_vocabulary

from moestream.chat.reasoning import (
    HARMONY,
    MARKERS,
    Markers,
    Piece,
    ReasoningSplitter,
    find_markers,
)
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

THINK = MARKERS[0]


def split(pieces: list[str], *, inside: bool = False, markers: Markers | None = THINK) -> list[str]:
    """Reasoning and answer, as they come to be in the end."""
    splitter = ReasoningSplitter(markers, inside=inside)
    found: list[Piece] = []
    for piece in pieces:
        found += splitter.add(piece)
    found += splitter.finish()
    return ["".join(p.text for p in found if p.kind == kind) for kind in ("reasoning", "answer")]


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("Hello.", False, ["", "Hello."]),
        ("<think>\nhm, so\n</think>\n\nYes.", False, ["hm, so", "Yes."]),
        (" \n<think>hm</think>Yes.", False, ["hm", "Yes."]),
        ("<think></think>Yes.", False, ["", "Yes."]),
        ("<think>hm", False, ["hm", ""]),
        ("<think>hm </thin", False, ["hm </thin", ""]),
        ("\nhm</think>Yes.", True, ["hm", "Yes."]),
        ("a < b <think> c", False, ["", "a < b <think> c"]),
        ("Yes: <think>no</think>", False, ["", "Yes: <think>no</think>"]),
        ("<think>a</think>b</think>c", False, ["a", "b</think>c"]),
        ("<thin air>", False, ["", "<thin air>"]),
        ("<think>a\n\nb</think>\nc\n\nd\n", False, ["a\n\nb", "c\n\nd\n"]),
    ],
)
def test_markers_may_be_cut_anywhere(text: str, inside: bool, expected: list[str]) -> None:
    assert split([text], inside=inside) == expected
    assert split(list(text), inside=inside) == expected
    for cut in range(len(text)):
        assert split([text[:cut], text[cut:]], inside=inside) == expected


FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant" + FINAL + "Yes.",
            ["hm", "Yes."],
        ),
        (FINAL + "Yes: <|end|>", ["", "Yes: <|end|>"]),
        ("Hello.", ["", "Hello."]),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>"
            "b<|end|><|start|>assistant" + FINAL + "c",
            ["ab", "c"],
        ),
        (
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}",
            ["", "{}"],
        ),
        ("<|channel|>analysis<|message|>hm", ["hm", ""]),
    ],
)
def test_harmony_has_messages_with_headers(text: str, expected: list[str]) -> None:
    assert split([text], markers=HARMONY) == expected
    assert split(list(text), markers=HARMONY) == expected
    for cut in range(len(text)):
        assert split([text[:cut], text[cut:]], markers=HARMONY) == expected


def test_gemma_4_thinks_in_a_channel() -> None:
    markers = next(markers for markers in MARKERS if markers.close == "<channel|>")
    text = "<|channel>thought\nhm\n<channel|>Yes."
    assert split([text], markers=markers) == split(list(text), markers=markers) == ["hm", "Yes."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nhm\n</think>\n<answer>\nYes, so.\n</answer>", ["hm", "Yes, so."]),
        ("<answer>Yes.</answer>\n", ["", "Yes.\n"]),
        ("<think>hm</think>Yes <answer>.", ["hm", "Yes <answer>."]),
        ("<think>hm</think><answer>a </b> </answe", ["hm", "a </b> </answe"]),
        ("<think>hm</think><ans", ["hm", "<ans"]),
        ("<think>hm</think><answer>", ["hm", ""]),
    ],
)
def test_an_answer_may_stand_in_tags(text: str, expected: list[str]) -> None:
    markers = Markers("<think>", "</think>", ("<answer>", "</answer>"))
    assert split([text], markers=markers) == expected
    assert split(list(text), markers=markers) == expected
    for cut in range(len(text)):
        assert split([text[:cut], text[cut:]], markers=markers) == expected


def test_what_is_sure_comes_at_once() -> None:
    splitter = ReasoningSplitter(THINK)
    assert splitter.add("<thi") == []
    assert splitter.add("nk>hm ") == [Piece("reasoning", "hm")]
    assert splitter.reasoning
    assert splitter.add("so <") == [Piece("reasoning", " so")]
    assert splitter.add("b") == [Piece("reasoning", " <b")]
    assert splitter.add("</think>Y") == [Piece("answer", "Y")]
    assert not splitter.reasoning


def test_without_markers_nothing_is_touched() -> None:
    assert split(["\n <think>", "a</think> "], markers=None) == ["", "\n <think>a</think> "]


def test_markers_are_those_of_the_vocabulary_or_the_template(tmp_path: Path) -> None:
    def tokenizer(name: str, specials: list[tuple[str, TokenType]]) -> Tokenizer:
        path = write_bytes_vocabulary(tmp_path / name, specials=specials)
        return Tokenizer.from_gguf(GGUFFile.open(path))

    plain = tokenizer("plain.gguf", [])
    assert find_markers("{{ messages }}", plain) is None
    assert find_markers("{{ content.split('</think>') }}", plain) == THINK
    answers = "{{ content.split('</think>')[-1].split('<answer>')[-1] }}"
    assert find_markers(answers, plain) == Markers("<think>", "</think>", ("<answer>", "</answer>"))
    own = tokenizer("own.gguf", [("[THINK]", TokenType.CONTROL), ("[/THINK]", TokenType.CONTROL)])
    assert find_markers("{{ messages }}", own) == Markers("[THINK]", "[/THINK]")


def test_harmony_goes_by_its_channel_token(tmp_path: Path) -> None:
    path = write_bytes_vocabulary(
        tmp_path / "v.gguf", specials=[("<|channel|>", TokenType.CONTROL)]
    )
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(path))
    assert find_markers("<|start|>{{ x }}<|message|>", tokenizer) == HARMONY
