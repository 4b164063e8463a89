"""What a request that fails is answered with: a status, and an error object.

Owns which error of the library is whose fault. Nothing of this machine, no path and no trace, is
in an answer: those are for the server's own log.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from moestream.chat.renderer import RenderingError
from moestream.errors import (
    BusyError,
    ContextLengthError,
    MoestreamError,
    RequestError,
    TemplateError,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_ANTHROPIC_TYPES = {404: "not_found_error", 413: "request_too_large", 503: "overloaded_error"}
"""Its names, where they are others."""
_ANTHROPIC_PATH = "/messages"
_HEADERS = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
"""What goes with a status."""


class APIError(Exception):
    """A request that is answered with an error; ``extra`` are fields of its object too."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, **extra: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(_HEADERS.get(status, {}))
        self.extra = extra

    def body_at(self, path: str) -> dict[str, Any]:
        """The error object of the API that this path is of."""
        path = path.removeprefix("/v1")
        if path == _ANTHROPIC_PATH or path.startswith(f"{_ANTHROPIC_PATH}/"):
            return self.anthropic()
        return self.body()

    def anthropic(self) -> dict[str, Any]:
        """Anthropic's error object."""
        kind = _ANTHROPIC_TYPES.get(self.status) or _TYPES.get(self.status)
        kind = kind or (_TYPES[400] if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def body(self) -> dict[str, Any]:
        """OpenAI's error object, with the status as its code, as llama-server has it."""
        kind = _TYPES.get(self.status) or (_TYPES[400] if self.status < 500 else "server_error")
        error = {"code": self.status, "message": self.message, "type": kind}
        return {"error": {**error, "param": self.param, **self.extra}}


def too_long(tokens: int, context: int) -> APIError:
    """A prompt that does not fit, in words that clients of llama-server look for."""
    return APIError(
        400,
        f"the request ({tokens} tokens) exceeds the available context size ({context} tokens): "
        "shorten it, or start the server with a larger -c",
        type="exceed_context_size_error",
        n_prompt_tokens=tokens,
        n_ctx=context,
    )


def busy(message: str) -> APIError:
    """No place for one more request."""
    return APIError(503, message)


def api_error(error: Exception) -> APIError:
    """What an exception is to the client."""
    match error:
        case APIError():
            return error
        case RequestError():
            return APIError(400, str(error), param=error.param)
        case BusyError():
            return busy(str(error))
        case TemplateError():
            return APIError(400, _template_told(error), param="messages")
        case ContextLengthError():
            return APIError(400, str(error), type="exceed_context_size_error")
        case MoestreamError():
            what = type(error).__name__
            return APIError(500, f"the model could not go on ({what}); the server's log says why")
    return APIError(500, "this should not have happened; the server's log says what did")


def _template_told(error: TemplateError) -> str:
    """What the template says, without where it was read from."""
    reason = error.__context__
    said = f": {reason}" if isinstance(reason, RenderingError) else ""
    return f"the chat template cannot render these messages{said}"


def invalid(error: ValidationError, body: Mapping[str, Any]) -> APIError:
    """What is wrong with a body, by its first field that is."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [(_path(each, body), each["msg"].removeprefix("Value error, ")) for each in found]
    first = found[0]["loc"]
    # A field that may be of several kinds has an error of each: the one that fits best counts.
    shared = next((i for i, part in enumerate(first) if part not in told[0][0]), len(first))
    told = [each for each in told if each[0][:shared] == first[:shared]]
    path = max((each[0] for each in told), key=len)
    messages = dict.fromkeys(message for each, message in told if each == path)
    what = " or ".join(messages).replace(" or Input should be", " or")
    if not path:
        return APIError(400, what)
    return APIError(400, f"{'.'.join(map(str, path))}: {what}", param=str(path[0]))


def _path(error: Any, body: Any) -> tuple[int | str, ...]:
    """Where in the body an error is, without the names of the kinds that were tried."""
    path: list[int | str] = []
    for part in error["loc"]:
        inside = isinstance(body, Mapping) and part in body
        inside |= isinstance(body, list) and isinstance(part, int) and part < len(body)
        if inside:
            body = body[part]
        if inside or (error["type"] == "missing" and part == error["loc"][-1]):
            path.append(part)
    return tuple(path)
