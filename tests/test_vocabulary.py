from pathlib import Path

import pytest
from gguf.constants import TokenType
from vocabulary_files import write_bytes_vocabulary, write_pieces_vocabulary

from moestream.gguf import GGUFFile
from moestream.tokenizer.vocabulary import Vocabulary

NORMAL, CONTROL, USER = TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED
FIRST = 257  # the id of the first special token


def read(path: Path) -> Vocabulary:
    return Vocabulary.from_gguf(GGUFFile.open(path), merges=True)


def write(path: Path, *specials: tuple[str, TokenType], **keys: object) -> Vocabulary:
    return read(write_bytes_vocabulary(path / "v.gguf", specials, **keys))


def test_end_ids_are_found_by_key_and_by_name(tmp_path: Path) -> None:
    found = write(
        tmp_path,
        ("<stop>", CONTROL),
        ("<|im_end|>", CONTROL),
        ("<turn>", CONTROL),
        ("<|fim_pad|>", CONTROL),
        ("<|im_start|>", CONTROL),
        eos_token_id=FIRST,
        eot_token_id=FIRST + 2,
    )
    assert found.end_ids == {FIRST, FIRST + 1, FIRST + 2, FIRST + 3}


def test_a_key_for_fill_in_the_middle_goes_before_the_name(tmp_path: Path) -> None:
    specials = [("<|fim_pad|>", CONTROL), ("<mine>", CONTROL)]
    found = write(tmp_path, *specials, fim_pad_token_id=FIRST + 1)
    assert found.end_ids == {FIRST + 1}


def test_names_that_look_like_control_are_control(tmp_path: Path) -> None:
    found = write(tmp_path, ("<|eot_id|>", NORMAL), ("<fim_prefix>", NORMAL), ("<b>", NORMAL))
    assert list(found.types[FIRST:]) == [CONTROL, CONTROL, NORMAL]
    assert found.end_ids == {FIRST}


def test_but_not_those_that_merges_make_of_text(tmp_path: Path) -> None:
    merges = ["< /", "</ s", "</s >"]
    found = write(tmp_path, merges=merges)
    html = found.ids["</s>"]
    assert found.types[html] == NORMAL
    assert html not in found.end_ids
    other = write_bytes_vocabulary(tmp_path / "w.gguf", [("</s>", NORMAL)])
    assert read(other).end_ids == {FIRST}


@pytest.mark.parametrize(
    ("company", "ends"),
    [
        ((), {"<|end|>"}),
        (("<|return|>", "<|call|>"), {"<|return|>", "<|call|>"}),
        (("<|flush|>", "<|calls|>"), {"<|flush|>", "<|calls|>"}),
        (("<|return|>",), {"<|end|>", "<|return|>"}),
    ],
)
def test_end_of_a_message_is_no_end_in_harmony(
    tmp_path: Path, company: tuple[str, ...], ends: set[str]
) -> None:
    found = write(tmp_path, *((text, CONTROL) for text in ("<|end|>", *company)))
    assert {found.tokens[id] for id in found.end_ids} == ends
    assert found.types[FIRST] == (CONTROL if "<|end|>" in ends else USER)


def test_channels_are_visible(tmp_path: Path) -> None:
    found = write(tmp_path, ("<|channel|>", CONTROL), ("<|start|>", CONTROL))
    assert list(found.types[FIRST:]) == [USER, USER]


def test_gemma_4_has_html(tmp_path: Path) -> None:
    found = write(tmp_path, ("<|tool_response>", CONTROL), ("</s>", CONTROL))
    assert found.end_ids == {FIRST}
    assert found.types[FIRST + 1] == NORMAL


def test_holes_get_names_and_types_may_be_missing(tmp_path: Path) -> None:
    found = write(tmp_path, ("", NORMAL), ("", NORMAL))
    assert list(found.tokens[FIRST:]) == ["[EMPTY_257]", "[EMPTY_258]"]
    untyped = read(write_bytes_vocabulary(tmp_path / "w.gguf", [("<s>", CONTROL)], token_type=None))
    assert set(untyped.types) == {NORMAL}


def test_right_stripping_goes_by_the_models_name(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    write_pieces_vocabulary(path, [("a", 0.0)], **{"general.name": "Phi-3 mini"})
    file = GGUFFile.open(path)
    assert Vocabulary.from_gguf(file, merges=False).strips_right == {2}
    write_pieces_vocabulary(path, [("a", 0.0)], **{"general.name": "Llama"})
    assert not Vocabulary.from_gguf(GGUFFile.open(path), merges=False).strips_right
