"""Words where llama.cpp's own splitting is not the model's; the rest is in test_tokenizer."""

import pytest

from moestream.tokenizer.pretokenizers import pre_tokenizers

CASED = ("tekken", "gpt-4o", "llama4", "minimax-m2", "kimi-k2", "youtu", "tiny_aya")


def words(name: str, text: str) -> list[str]:
    pieces = pre_tokenizers()[name].build().pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in pieces]


# What llama.cpp's converter writes for the mixtures of experts that run here.
OF_MIXTURES = (
    "gpt-4o", "qwen2", "qwen35", "deepseek-llm", "deepseek-v3", "glm4", "kimi-k2", "gemma4",
    "refact", "granite-docling", "dbrx", "lfm2", "bailingmoe2", "minimax-m2", "hunyuan", "olmo",
)  # fmt: skip


def test_the_words_of_all_mixtures_are_known() -> None:
    assert set(OF_MIXTURES) <= set(pre_tokenizers())


@pytest.mark.parametrize("name", CASED)
def test_a_capital_begins_a_word_in_any_alphabet(name: str) -> None:
    assert words(name, "москваМОСКВА éÉ") == ["москва", "МОСКВА", " é", "É"]


@pytest.mark.parametrize("name", CASED)
def test_accents_belong_to_the_word(name: str) -> None:
    # llama.cpp has neither the accent that follows nor the one that begins a word.
    assert words(name, "o\u0301x \u0301a") == ["o\u0301x", " \u0301a"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("kimi-k2", "漢字abc漢Ab", ["漢字", "abc", "漢", "Ab"]),
        ("kimi-k2", "a!/b", ["a", "!/", "b"]),
        ("gpt-4o", "!\n/x'LL12345", ["!\n/", "x'LL", "123", "45"]),
        ("tekken", "x'll 12", ["x", "'ll", " ", "1", "2"]),
        ("deepseek-llm", "a 12\u3000b", ["a", " ", "1", "2", "\u3000", "b"]),
        ("deepseek-coder", "a \u2003b12", ["a", " ", "\u2003", "b", "1", "2"]),
        ("afmoe", "a  ½1234567", ["a", "  ", "½1", "234", "567"]),
        ("tiny_aya", "1234567 14159e", ["1", "234", "567", " ", "141", "59", "e"]),
        ("bailingmoe", "a\n\nb'S", ["a", "\n\n", "b", "'S"]),
        ("qwen35", "नमस्ते1", ["नमस्ते", "1"]),
        ("falcon", "a!!12345", ["a", "!!", "123", "45"]),
        ("gemma4", "a\n\nb c", ["a", "\n\n", "b c"]),
    ],
)
def test_words(name: str, text: str, expected: list[str]) -> None:
    assert words(name, text) == expected


def test_no_name_is_in_two_rows() -> None:
    names = [name for rules in set(pre_tokenizers().values()) for name in rules.names]
    assert len(names) == len(set(names)) == len(pre_tokenizers())
