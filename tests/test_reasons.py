"""What was wrong, without Python's own words."""

import json

import pytest

from moestream.reasons import reason_of


def error_of(run: object) -> Exception:
    try:
        run()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (lambda: json.loads(""), "it is empty"),
        (lambda: json.loads('{"a":\n 1,}'), "it is not JSON in line 2, column 4"),
        (lambda: b"ab\xff".decode(), "not UTF-8 text: byte 2 is 0xff"),
        (lambda: json.loads("9" * 5000), "a number in it has thousands of digits"),
        (lambda: json.loads("[" * 100_000), "nested too deeply"),
        (lambda: open("/nonexist/x"), "No such file or directory"),  # noqa: PTH123, SIM115
    ],
)
def test_reasons_are_words(run: object, told: str) -> None:
    assert reason_of(error_of(run)) == told


def test_errors_of_others_lose_their_numbers() -> None:
    assert reason_of(OSError("[Errno -2] Name or service not known")) == "Name or service not known"
    assert reason_of(ValueError()) == "ValueError"
