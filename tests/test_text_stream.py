import random

import pytest
from vocabulary_files import write_bytes_vocabulary

from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.text_stream import TextStream

MERGES = ("a b", "ab c", "S T", "O P", "ST OP")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("text") / "v.gguf"
    return Tokenizer.from_gguf(GGUFFile.open(write_bytes_vocabulary(path, merges=MERGES)))


def stream(
    tokenizer: Tokenizer, text: bytes, stop: tuple[str, ...]
) -> tuple[list[str], TextStream]:
    found = TextStream(tokenizer, stop)
    return [found.add(byte) for byte in text], found


def test_without_stop_strings_text_comes_at_once(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, "aé".encode(), ())
    assert parts == ["a", "", "é"]
    assert (found.finish(), found.stopped) == ("", None)


def test_a_stop_string_over_several_tokens_is_cut_off(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, b"xySTOPz", ("STOP",))
    assert parts == ["x", "y", "", "", "", "", ""]
    assert (found.finish(), found.stopped) == ("", "STOP")


def test_a_stop_string_inside_one_token(tokenizer: Tokenizer) -> None:
    (token,) = tokenizer.encode("abc")
    found = TextStream(tokenizer, ["b"])
    assert found.add(token) == "a"
    assert found.stopped == "b"
    assert found.add(token) == ""


def test_what_only_looked_like_a_stop_string_is_given_back(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, b"aSTaSTO", ("STOP",))
    assert parts == ["a", "", "", "STa", "", "", ""]
    assert (found.finish(), found.stopped) == ("STO", None)


def test_a_stop_string_that_begins_inside_a_false_start(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, b"aaab", ("aab",))
    assert "".join(parts) == "a"
    assert found.stopped == "aab"


def test_the_one_that_ends_first_wins_and_of_those_the_longest(tokenizer: Tokenizer) -> None:
    _, found = stream(tokenizer, b"abcd", ("bcd", "bc", "abc"))
    assert found.stopped == "abc"
    assert stream(tokenizer, b"abcd", ("abcd", "b"))[1].stopped == "b"


def test_empty_stop_strings_are_ignored(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, b"ab", ("",))
    assert ("".join(parts), found.stopped) == ("ab", None)


def test_half_a_character_at_the_end(tokenizer: Tokenizer) -> None:
    parts, found = stream(tokenizer, "S🙂".encode()[:-1], ("SX",))
    assert "".join(parts) == ""
    assert found.finish() == "S\ufffd"


def test_the_tokens_bounds_make_no_difference(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    stops = ("abc", "STOP", "bS", "cc")
    for _ in range(200):
        text = "".join(rng.choices("abcSTOP", k=12))
        results = []
        for ids in (list(text.encode()), tokenizer.encode(text)):
            found = TextStream(tokenizer, stops)
            printed = "".join(map(found.add, ids)) + found.finish()
            results.append((printed, found.stopped))
        assert results[0] == results[1], text
        printed, stopped = results[0]
        assert text.startswith(printed + (stopped or ""))
        assert stopped or printed == text
