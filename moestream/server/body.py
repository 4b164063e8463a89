"""A request's body as JSON, and JSON as a response: strict, and not to be broken by depth."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from moestream.server.errors import APIError, invalid

_DEEPEST = 100
"""Lists and objects within each other; what works on them later may call itself so often."""
_SILENT_S = 30.0
"""A body of which nothing comes for so long is given up."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
Model = TypeVar("Model", bound=BaseModel)


def to_json(value: Any) -> bytes:
    """Compact JSON; what cannot be UTF-8 becomes question marks."""
    return _encode(value).encode(errors="replace")


class JSON(Response):
    """A value, told as JSON."""

    media_type = "application/json; charset=utf-8"

    def __init__(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None):
        super().__init__(to_json(value), status, headers)


async def read(request: Request, as_a: type[Model]) -> Model:
    """The body, which must be a JSON object of this kind.

    Raises:
        APIError: it is not; or it does not come.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().casefold() not in ("", "identity"):
        raise APIError(415, "content-encoding is not supported here: send the body as it is")
    value = parse(await _bytes(request))
    if not isinstance(value, dict):
        raise APIError(400, "the body must be a JSON object")
    try:
        return as_a.model_validate(value)
    except ValidationError as error:
        raise invalid(error, value) from None


async def _bytes(request: Request) -> bytes:
    data, parts = bytearray(), request.stream()
    try:
        while True:
            async with asyncio.timeout(_SILENT_S):
                data += await anext(parts)
    except StopAsyncIteration:
        return bytes(data)
    except TimeoutError:
        raise APIError(408, "the body did not come") from None
    except ClientDisconnect:
        raise APIError(400, "the client left before its request was whole") from None


def parse(data: bytes) -> Any:
    """Read JSON.

    Raises:
        APIError: it is none, it is nested too deep, or has numbers that JSON has not.
    """
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not JSON: {_why(error)}") from None
    level = _containers([value])
    for _ in range(_DEEPEST):
        if not level:
            return value
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = _containers(chain.from_iterable(inner))
    raise APIError(400, f"the body is nested deeper than {_DEEPEST} levels")


def _why(error: Exception) -> str:
    match error:
        case RecursionError():
            return "it is nested too deep"
        case json.JSONDecodeError() | UnicodeDecodeError() | _NoNumberError():
            return str(error)
    return "a number has too many digits"  # Python's own words lead into Python


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


class _NoNumberError(ValueError):
    """A name of what is no number."""


def _refuse(name: str) -> NoReturn:
    raise _NoNumberError(f"{name} is no number of JSON")
