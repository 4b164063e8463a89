"""/openapi.json: a description of the endpoints, written from the models of their bodies."""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from moestream import __version__
from moestream.server.anthropic.schemas import CountRequest, MessagesRequest
from moestream.server.openai import schemas
from moestream.server.openai.responses_schema import ResponsesRequest
from moestream.server.text import DetokenizeRequest, TokenizeRequest

_POST: dict[str, tuple[str, type[BaseModel]]] = {
    "/v1/chat/completions": ("Answer a chat", schemas.ChatRequest),
    "/v1/completions": ("Continue texts", schemas.CompletionRequest),
    "/v1/responses": ("Answer items", ResponsesRequest),
    "/completion": ("Continue texts, in llama-server's words", schemas.LlamaRequest),
    "/v1/messages": ("Answer messages, in Anthropic's words", MessagesRequest),
    "/v1/messages/count_tokens": ("Tell how many tokens messages become", CountRequest),
    "/apply-template": ("Tell the prompt that messages become", schemas.Prompt),
    "/tokenize": ("Text to tokens", TokenizeRequest),
    "/detokenize": ("Tokens to text", DetokenizeRequest),
}
_GET = {
    "/health": "Whether the model is there",
    "/v1/models": "The model",
    "/props": "What the server was started with",
    "/slots": "The places, and what runs in them",
    "/metrics": "Numbers for Prometheus",
}
_TEXT = {"/metrics": "text/plain"}
_STREAMED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/completion",
    "/v1/messages",
    "/v1/responses",
)
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
def description() -> dict[str, Any]:
    """The whole description, of OpenAPI 3.1."""
    models = [(model, "validation") for _, model in _POST.values()]
    _, made = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, Any] = {
        path: {"get": {"summary": told, "responses": _responses(path)}}
        for path, told in _GET.items()
    }
    for path, (told, model) in _POST.items():
        reference = {"$ref": f"#/components/schemas/{model.__name__}"}
        paths[path] = {
            "post": {
                "summary": told,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": reference}},
                },
                "responses": _responses(path),
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "moestream", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**made["$defs"], "Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _responses(path: str) -> dict[str, Any]:
    media = _TEXT.get(path, "application/json")
    schema = {"type": "string"} if path in _TEXT else {}
    content: dict[str, Any] = {media: {"schema": schema}}
    if path in _STREAMED:
        content["text/event-stream"] = {}
    kind = "AnthropicError" if path.startswith(_ANTHROPIC) else "Error"
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind}"}}}
    return {
        "200": {"description": "Done", "content": content},
        "4XX": {"description": "The request is wrong", "content": error},
        "503": {"description": "Not now", "content": error},
    }
