"""/tokenize and /detokenize, as llama-server has them."""

import asyncio
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request

from moestream.server.body import JSON, read
from moestream.server.errors import APIError
from moestream.server.model import Model
from moestream.server.state import state_of
from moestream.tokenizer import Tokenizer


class TokenizeRequest(BaseModel):
    """The body of /tokenize."""

    content: str | list[Any] = ""
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(BaseModel):
    """The body of /detokenize."""

    tokens: list[int] = Field(default_factory=list)


async def tokenize(request: Request) -> JSON:
    """Text to tokens; with their pieces, if asked for."""
    asked = await read(request, TokenizeRequest)
    tokenizer = state_of(request).model.tokenizer
    ids = await asyncio.to_thread(
        mixed, tokenizer, asked.content, asked.add_special, asked.parse_special
    )
    if not asked.with_pieces:
        return JSON({"tokens": ids})
    return JSON({"tokens": [{"id": id, "piece": _piece(tokenizer, id)} for id in ids]})


async def detokenize(request: Request) -> JSON:
    """Tokens to text."""
    asked = await read(request, DetokenizeRequest)
    tokenizer = state_of(request).model.tokenizer
    ids = known(tokenizer, asked.tokens, "tokens")
    return JSON({"content": await asyncio.to_thread(tokenizer.decode, ids)})


def mixed(
    tokenizer: Tokenizer, content: str | list[Any], add_special: bool, parse_special: bool = True
) -> list[int]:
    """The tokens of a text, or of a list of texts and tokens, which are one text.

    Raises:
        APIError: something else is in the list.
    """
    parts = [content] if isinstance(content, str) else content
    ids: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            special = add_special and index == 0
            ids += tokenizer.encode(part, add_special=special, parse_special=parse_special)
        elif isinstance(part, int) and not isinstance(part, bool):
            ids += known(tokenizer, [part], "prompt")
        else:
            raise APIError(400, "expected text or token ids", param="prompt")
    return ids


def known(tokenizer: Tokenizer, ids: list[int], param: str) -> list[int]:
    """See that the model has these tokens.

    Raises:
        APIError: one it has not.
    """
    wrong = next((id for id in ids if not 0 <= id < tokenizer.vocab_size), None)
    if wrong is not None:
        raise APIError(
            400, f"there is no token {wrong}, but 0 to {tokenizer.vocab_size - 1}", param=param
        )
    return ids


def prompts(model: Model, given: Any, choices: int) -> list[tuple[str, list[int]]]:
    """The prompts of a text completion: one text or list of tokens, or several.

    Raises:
        APIError: they are none of these, or too many for so many choices of each.
    """
    if isinstance(given, str | dict) or _is_one(given):
        model.check_sequences(1, choices)
        return [_prompt(model, given)]
    if not isinstance(given, list) or not given:
        raise APIError(400, "expected a text, a list of tokens, or several", param="prompt")
    model.check_sequences(len(given), choices)
    return [_prompt(model, each) for each in given]


def _is_one(given: Any) -> bool:
    """Whether a list is of tokens, and perhaps of texts between them."""
    return isinstance(given, list) and any(isinstance(each, int) for each in given)


def _prompt(model: Model, given: Any) -> tuple[str, list[int]]:
    if isinstance(given, dict):
        if given.get("multimodal_data"):
            raise APIError(400, "this model reads text alone", param="prompt")
        given = given.get("prompt_string")
    if not isinstance(given, str | list):
        raise APIError(400, "expected a text or a list of tokens", param="prompt")
    ids = mixed(model.tokenizer, given, add_special=True)
    if not ids:
        raise APIError(400, "the prompt is empty", param="prompt")
    return model.tokenizer.decode(ids), ids


def _piece(tokenizer: Tokenizer, id: int) -> str | list[int]:
    data = tokenizer.token_bytes(id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
