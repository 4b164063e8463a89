"""What ``logit_bias`` of a request becomes: what is added to the scores of which tokens."""

from collections.abc import Iterable
from typing import Any

from moestream.server.errors import APIError
from moestream.tokenizer import Tokenizer

BANNED = float("-inf")


def read_biases(given: Any, tokenizer: Tokenizer) -> dict[int, float]:
    """Read pairs, or an object, of tokens and biases; text stands for each of its tokens.

    Raises:
        APIError: an id outside the vocabulary or given twice, or a bias that is none.
    """
    if len(given) > tokenizer.vocab_size:
        raise _no_bias(f"there are {len(given)}, and {tokenizer.vocab_size} tokens")
    pairs: Iterable[tuple[int | str, float | bool]]
    pairs = given.items() if isinstance(given, dict) else given
    found: dict[int, float] = {}
    numbers: set[int] = set()
    for token, bias in pairs:
        if (number := _number(token)) is None:
            ids = tokenizer.encode(str(token), add_special=False)
        elif number in numbers:
            raise _no_bias(f"token {number} is there twice")
        else:
            ids = [_known(number, tokenizer)]
            numbers.add(number)
        found |= dict.fromkeys(ids, _bias(bias))
    return found


def _number(token: int | str) -> int | None:
    """The number of a token; None of a text."""
    if isinstance(token, int):
        return token
    if not (token.isascii() and token.isdigit()):
        return None
    return int(token) if len(token) < 20 else -1


def _known(number: int, tokenizer: Tokenizer) -> int:
    if not 0 <= number < tokenizer.vocab_size:
        raise _no_bias(f"there is no token {number}, but 0 to {tokenizer.vocab_size - 1}")
    return number


def _bias(bias: float | bool) -> float:
    if bias is True:
        raise _no_bias("true is no bias; false bans")
    return BANNED if bias is False else float(bias)


def _no_bias(why: str) -> APIError:
    return APIError(400, f"logit_bias: {why}", param="logit_bias")
