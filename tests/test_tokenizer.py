import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf.constants import TokenType
from vocabulary_files import (
    DATA,
    NAMES,
    lines,
    unpack,
    write_bytes_vocabulary,
    write_pieces_vocabulary,
)

from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.pretokenizers import pre_tokenizers

Load = Callable[[str], Tokenizer]
CHATML = [("<|im_start|>", TokenType.CONTROL), ("<|im_end|>", TokenType.CONTROL)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("vocabularies")
    loaded: dict[str, Tokenizer] = {}

    def load(name: str) -> Tokenizer:
        if name not in loaded:
            loaded[name] = tokenizer(unpack(name, folder))
        return loaded[name]

    return load


def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_gguf(GGUFFile.open(path))


# --- against llama.cpp ---


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpps_own_lines(load: Load, name: str) -> None:
    cases = lines(name)
    assert len(cases) >= 46
    for text, ids in cases:
        assert load(name).encode(text, add_special=False) == ids, text


@pytest.mark.parametrize("name", NAMES)
def test_decoding_gives_the_text_back(load: Load, name: str) -> None:
    for text, ids in lines(name):
        assert load(name).decode(ids) == text


GOLDEN = json.loads(lzma.decompress((DATA / "pre.json.xz").read_bytes()))


@pytest.mark.parametrize("name", GOLDEN["ids"])
def test_llama_cpps_ids_under_each_set_of_rules(load: Load, name: str) -> None:
    base = load("ggml-vocab-gpt-2")
    rules = pre_tokenizers()[name]
    base._encoder.bpe.pre_tokenizer = rules.build()  # the vocabulary stays, the rules change
    pairs = [
        (text, ids)
        for text, ids in zip(GOLDEN["texts"], GOLDEN["ids"][name], strict=True)
        if ids is not None
    ]
    try:
        assert len(pairs) >= 60
        for text, ids in pairs:
            assert base.encode(text, add_special=False, parse_special=False) == ids, text
    finally:
        base._encoder.bpe.pre_tokenizer = pre_tokenizers()["gpt-2"].build()


def test_every_set_of_rules_has_golden_ids() -> None:
    byte_level = {rules.names for rules in pre_tokenizers().values() if rules.byte_level}
    assert {names[0] for names in byte_level} == set(GOLDEN["ids"])


# --- special tokens ---


def test_special_tokens_are_read_or_left_as_text(tmp_path: Path) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", CHATML))
    start, end = found.token_id("<|im_start|>"), found.token_id("<|im_end|>")
    text = "x<|im_start|>ab<|im_end|>"
    assert found.encode(text) == [ord("x"), start, 256, end]
    plain = found.encode(text, parse_special=False)
    assert start not in plain
    assert end not in plain
    assert found.decode(plain) == text


def test_user_defined_tokens_are_always_read_and_the_longest_wins(tmp_path: Path) -> None:
    user = TokenType.USER_DEFINED
    specials = [("<x>", user), ("<x><y>", user), ("<z>", TokenType.CONTROL)]
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", specials))
    assert found.encode("<x><x><y><x>", parse_special=False) == [257, 258, 257]
    assert found.encode("<x><z>", parse_special=False)[0] == 257
    assert 259 not in found.encode("<x><z>", parse_special=False)


def test_plain_text_never_merges_into_a_control_token(tmp_path: Path) -> None:
    pieces = [("<", -1.0), ("s", -2.0), (">", -3.0), ("<s", -4.0), ("▁", -5.0)]
    found = tokenizer(write_pieces_vocabulary(tmp_path / "v.gguf", pieces))
    assert found.encode("<s>", add_special=False) == [1]
    ids = found.encode("<s>", add_special=False, parse_special=False)
    assert 1 not in ids
    assert found.decode(ids) == "<s>"


def test_no_word_is_a_control_token(tmp_path: Path) -> None:
    merges = ["a b", "z q"]  # the second makes a control token
    types = [int(TokenType.NORMAL)] * 257 + [int(TokenType.CONTROL)]
    path = tmp_path / "v.gguf"
    # Of the rules for llama-bpe: a word that is a token is that token.
    for pre in ("gpt-2", "llama-bpe"):
        write_bytes_vocabulary(path, merges=merges, token_type=types, pre=pre)
        found = tokenizer(path)
        assert found.encode("zq") == [257]
        assert found.encode("zq", parse_special=False) == [ord("z"), ord("q")]


def test_phi_3_swallows_the_space_after_its_special_tokens(load: Load, tmp_path: Path) -> None:
    phi = load("ggml-vocab-phi-3")
    user = phi.token_id("<|user|>")
    assert phi.encode("<|user|>\n a", add_special=False) == [
        user,
        *phi.encode("a", add_special=False),
    ]
    other = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", CHATML))
    assert other.decode(other.encode("<|im_end|>\n a")) == "<|im_end|>\n a"


# --- BOS and EOS ---


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [97]),
        ({"bos_token_id": 257}, [97]),
        ({"bos_token_id": 257, "add_bos_token": True}, [257, 97]),
        ({"eos_token_id": 258, "add_eos_token": True}, [97, 258]),
        ({"bos_token_id": 257, "pre": "llama-bpe"}, [257, 97]),
        ({"pre": "llama-bpe"}, [97]),
        ({"bos_token_id": 257, "pre": "llama-bpe", "add_bos_token": False}, [97]),
    ],
)
def test_bos_and_eos(tmp_path: Path, keys: dict[str, object], expected: list[int]) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", CHATML, **keys))
    assert found.encode("a") == expected
    assert found.encode("a", add_special=False) == [97]


def test_sentencepiece_has_bos_and_its_ids_by_default(tmp_path: Path) -> None:
    found = tokenizer(write_pieces_vocabulary(tmp_path / "v.gguf", [("▁a", -1.0)]))
    assert (found.bos_id, found.eos_id) == (1, 2)
    assert found.encode("") == [1]
    assert found.encode("", add_special=False) == []


def test_a_chat_prompt_gets_one_bos(tmp_path: Path) -> None:
    pieces = [("▁", -1.0), ("a", -2.0), ("▁a", -3.0)]
    found = tokenizer(write_pieces_vocabulary(tmp_path / "v.gguf", pieces))
    assert found.encode_chat("a") == found.encode_chat("<s>a") == [1, 261]
    without = write_pieces_vocabulary(tmp_path / "w.gguf", pieces, add_bos_token=False)
    assert tokenizer(without).encode_chat("a") == [261]


# --- SentencePiece ---


def test_the_best_score_merges_first_and_what_is_missing_is_bytes(tmp_path: Path) -> None:
    pieces = [("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("▁", -9.0)]
    found = tokenizer(write_pieces_vocabulary(tmp_path / "v.gguf", pieces, add_space_prefix=False))
    a, _, _, ab, bc, space = range(259, 265)
    assert found.encode("abc", add_special=False) == [a, bc]
    assert found.encode("ab abc", add_special=False) == [ab, space, a, bc]
    assert found.encode("é", add_special=False) == [3 + 0xC3, 3 + 0xA9]


def test_a_space_prefix_follows_each_special_token(tmp_path: Path) -> None:
    pieces = [("▁", -1.0), ("a", -2.0)]
    found = tokenizer(write_pieces_vocabulary(tmp_path / "v.gguf", pieces))
    ids = found.encode("a</s>a", add_special=False)
    assert ids == [259, 260, 2, 259, 260]
    assert found.decode(ids) == "a</s>a"
    assert found.decode(found.encode("  a", add_special=False)) == "  a"


def test_extra_spaces_go_when_the_file_says_so(tmp_path: Path) -> None:
    pieces = [("▁", -1.0), ("a", -2.0)]
    path = write_pieces_vocabulary(tmp_path / "v.gguf", pieces, remove_extra_whitespaces=True)
    assert tokenizer(path).encode("  a   a ", add_special=False) == [259, 260, 259, 260]


# --- bytes and streaming ---


def test_detokenizer_never_gives_half_a_character(load: Load) -> None:
    for name in ("ggml-vocab-gpt-2", "ggml-vocab-llama-spm", "ggml-vocab-gemma-4"):
        found = load(name)
        for text, ids in lines(name):
            stream = found.detokenizer()
            parts = [stream.add(id) for id in ids]
            assert "\ufffd" not in "".join(parts)
            whole = "".join(parts) + stream.finish()
            assert whole in (text, f" {text}")


def test_what_is_no_character_becomes_a_replacement_character(tmp_path: Path) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf"))
    smile = "🙂".encode()
    stream = found.detokenizer()
    assert [stream.add(byte) for byte in smile[:3]] == ["", "", ""]
    assert stream.finish() == "\ufffd"
    assert stream.add(0x41) == "A"
    assert stream.add(smile[0]) == ""
    assert stream.add(0x41) == "\ufffdA"
    assert found.decode([*smile, smile[0], 0x41]) == "🙂\ufffdA"


def test_special_tokens_are_shown_when_asked_for(tmp_path: Path) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", CHATML))
    ids = [257, 97, 258]
    assert found.decode(ids) == "<|im_start|>a<|im_end|>"
    assert found.decode(ids, skip_special=True) == "a"
    shown, hidden = found.detokenizer(skip_special=False), found.detokenizer()
    assert "".join(map(shown.add, ids)) == "<|im_start|>a<|im_end|>"
    assert "".join(map(hidden.add, ids)) == "a"


def test_token_bytes_of_every_kind(tmp_path: Path) -> None:
    specials = [("Grüße <x>", TokenType.NORMAL), ("<0x0A>", TokenType.BYTE)]
    specials += [("old", TokenType.UNUSED), ("<u>", TokenType.USER_DEFINED)]
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", specials))
    assert [found.token_bytes(id) for id in (0, 0x20, 0xFF, 256)] == [b"\0", b" ", b"\xff", b"ab"]
    tail = [found.token_bytes(id) for id in range(257, 261)]
    assert tail == ["Grüße <x>".encode(), b"\n", b"", b"<u>"]
    with pytest.raises(ValueError, match="token id 261 is not in 0 to 260"):
        found.token_bytes(261)
    with pytest.raises(ValueError, match="-1"):
        found.decode([-1])


def test_lone_surrogates_are_replacement_characters(tmp_path: Path) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf"))
    assert found.decode(found.encode("a\udcffb")) == "a\ufffdb"


def test_random_text_comes_back(load: Load) -> None:
    rng = random.Random(1)
    for name in ("ggml-vocab-qwen2", "ggml-vocab-llama-spm", "ggml-vocab-gemma-4"):
        for _ in range(50):
            codes = [rng.choice((32, 10, rng.randrange(1, 0xD800))) for _ in range(20)]
            text = "".join(map(chr, codes))
            assert load(name).decode(load(name).encode(text, add_special=False)) == text


# --- what cannot be read ---


def test_an_unknown_pre_tokenizer_is_named_with_those_known(tmp_path: Path) -> None:
    path = write_bytes_vocabulary(tmp_path / "v.gguf", pre="gpt-77")
    with pytest.raises(UnsupportedModelError, match=r"'gpt-77'.*known are .*qwen2.*tekken"):
        tokenizer(path)


def test_an_unknown_kind_of_tokenizer(tmp_path: Path) -> None:
    path = write_bytes_vocabulary(tmp_path / "v.gguf", model="rwkv")
    with pytest.raises(UnsupportedModelError, match=r"'rwkv'.*gpt2, llama, gemma4"):
        tokenizer(path)


def test_a_missing_pre_tokenizer_is_the_default_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = tokenizer(write_bytes_vocabulary(tmp_path / "v.gguf", pre=None))
    assert found.pre == "default"
    assert "tokenizer.ggml.pre is missing" in caplog.text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": None}, "tokenizer.ggml.model"),
        ({"tokens": None}, "tokenizer.ggml.tokens"),
        ({"merges": ["a b", "q z", "z zz"]}, "merges do not fit the vocabulary.*zz"),
        ({"merges": ["a b", "qq"]}, "merges do not fit"),
        ({"tokens": [1, 2]}, "holds int values; str was expected"),
        ({"token_type": [1]}, "token_type has 1 entries; at least 257"),
        ({"add_bos_token": True}, "add_bos_token is true, but .*bos_token_id is missing"),
        ({"add_eos_token": 1}, "add_eos_token"),
    ],
)
def test_metadata_that_is_missing_or_contradicts_itself(
    tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    path = write_bytes_vocabulary(tmp_path / "v.gguf", **keys)
    with pytest.raises(ModelFormatError, match=message):
        tokenizer(path)


def test_a_token_twice_and_a_byte_that_is_none(tmp_path: Path) -> None:
    twice = write_bytes_vocabulary(tmp_path / "v.gguf", [("A", TokenType.NORMAL)])
    with pytest.raises(ModelFormatError, match="token 'A' is in the vocabulary twice"):
        tokenizer(twice)
    byte = write_bytes_vocabulary(tmp_path / "w.gguf", [("x0A", TokenType.BYTE)])
    with pytest.raises(ModelFormatError, match="token 'x0A' is of type BYTE"):
        tokenizer(byte)
