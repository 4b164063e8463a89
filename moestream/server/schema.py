"""/openapi.json: a description of the endpoints, written from the models of their bodies."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from moestream import __version__
from moestream.server import experts_schema as experts
from moestream.server.anthropic.schemas import CountRequest, MessagesRequest
from moestream.server.openai import schemas
from moestream.server.openai.responses_schema import ResponsesRequest
from moestream.server.text import DetokenizeRequest, TokenizeRequest

RESIDENCY = "/v1/moestream/residency"
"""A stream that does not end."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path: what it does, and what it is asked and tells where that is fixed."""

    summary: str
    asked: type[BaseModel] | None = None
    told: tuple[type[BaseModel], ...] = ()
    """Several are the events of a stream."""


_POST = {
    "/v1/chat/completions": Endpoint("Answer a chat", schemas.ChatRequest),
    "/v1/completions": Endpoint("Continue texts", schemas.CompletionRequest),
    "/v1/responses": Endpoint("Answer items", ResponsesRequest),
    "/completion": Endpoint("Continue texts, in llama-server's words", schemas.LlamaRequest),
    "/v1/messages": Endpoint("Answer messages, in Anthropic's words", MessagesRequest),
    "/v1/messages/count_tokens": Endpoint("Tell how many tokens messages become", CountRequest),
    "/apply-template": Endpoint("Tell the prompt that messages become", schemas.Prompt),
    "/tokenize": Endpoint("Text to tokens", TokenizeRequest),
    "/detokenize": Endpoint("Tokens to text", DetokenizeRequest),
}
_GET = {
    "/health": Endpoint("Whether the model is there"),
    "/v1/models": Endpoint("The model"),
    "/props": Endpoint("What the server was started with"),
    "/slots": Endpoint("The places, and what runs in them"),
    "/metrics": Endpoint("Numbers for Prometheus"),
}
_PAGE_POST = {
    "/v1/moestream/profiles": Endpoint(
        "Keep what was counted as a profile", experts.ProfileRequest, (experts.ProfileSaved,)
    ),
}
_PAGE_GET = {
    RESIDENCY: Endpoint(
        "What the experts do, as it goes on",
        None,
        (experts.ResidencyModel, experts.ResidencyFrame),
    ),
    "/v1/moestream/profiles": Endpoint("Profiles that fit this model", None, (experts.Profiles,)),
    "/v1/moestream/profiles/{name}": Endpoint(
        "What a profile counted", None, (experts.ProfileCounts,)
    ),
    "/v1/moestream/forecast": Endpoint("What other budgets would do", None, (experts.Forecast,)),
}
_TEXT = {"/metrics": "text/plain"}
_STREAM = "text/event-stream"
_STREAMED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/completion",
    "/v1/messages",
    "/v1/responses",
)
_REFERENCE = "#/components/schemas/{model}"
_ANTHROPIC = "/v1/messages"
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}


@cache
def description(*, page: bool = True) -> dict[str, Any]:
    """The whole description, of OpenAPI 3.1; without the page's endpoints where there is none."""
    methods: list[tuple[str, Mapping[str, Endpoint]]] = [("get", _GET), ("post", _POST)]
    if page:
        methods += [("get", _PAGE_GET), ("post", _PAGE_POST)]
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], None] = {}
    for method, endpoints in methods:
        for path, endpoint in endpoints.items():
            paths.setdefault(path, {})[method] = _operation(path, endpoint)
            asked = () if endpoint.asked is None else (endpoint.asked,)
            models |= dict.fromkeys((*asked, *endpoint.told))
    wanted = [(model, "validation") for model in models]
    _, made = models_json_schema(wanted, ref_template=_REFERENCE)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "moestream", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**made["$defs"], "Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": endpoint.summary, "responses": _responses(path, endpoint)}
    if "{name}" in path:
        kind = {"type": "string", "minLength": 1}
        told["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": kind}]
    if endpoint.asked is not None:
        content = {"application/json": {"schema": _reference(endpoint.asked)}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _reference(model: type[BaseModel] | str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model if isinstance(model, str) else model.__name__)}


def _responses(path: str, endpoint: Endpoint) -> dict[str, Any]:
    kind = "AnthropicError" if path.startswith(_ANTHROPIC) else "Error"
    error = {"application/json": {"schema": _reference(kind)}}
    return {
        "200": {"description": "Done", "content": _content(path, endpoint)},
        "4XX": {"description": "The request is wrong", "content": error},
        "503": {"description": "Not now", "content": error},
    }


def _content(path: str, endpoint: Endpoint) -> dict[str, Any]:
    """What a good answer may be, by its media type."""
    if len(endpoint.told) > 1:
        events = [_reference(model) for model in endpoint.told]
        told = {
            "type": "string",
            "description": "Server-sent events, without an end; the data of each is one of these",
            "contentMediaType": "application/json",
            "contentSchema": {"oneOf": events},
        }
        return {_STREAM: {"schema": told}}
    if path in _TEXT:
        return {_TEXT[path]: {"schema": {"type": "string"}}}
    schema = _reference(endpoint.told[0]) if endpoint.told else {}
    return {"application/json": {"schema": schema}, **({_STREAM: {}} if path in _STREAMED else {})}
