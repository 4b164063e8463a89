"""From the messages of a chat to the prompt that the model reads.

Owns what messages may be, and what is made of them for templates: each API's own words were
translated before. Runs beside the event loop, as templates and tokenizers take their time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moestream.chat.template import ChatTemplate
from moestream.chat.thinking import opens_reasoning
from moestream.chat.tool_calls import GENERIC, with_tools
from moestream.errors import TemplateError
from moestream.server.errors import APIError, too_long
from moestream.server.model import Model

_TEXTS = ("text", "input_text", "output_text", "refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What a prompt is made of; messages and tools as OpenAI has them."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat as text and as tokens."""

    text: str
    tokens: list[int]
    inside: bool
    """Whether it has opened the reasoning, which the answer goes on with."""


def render(model: Model, chat: Chat) -> str:
    """The prompt's text.

    Raises:
        APIError: messages that make no sense, or are not of text.
        TemplateError: the template refuses them.
    """
    messages = [_message(model, index, each) for index, each in enumerate(chat.messages)]
    if not messages:
        raise APIError(400, "messages: at least one is needed", param="messages")
    if model.defaults.system and messages[0].get("role") not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": model.defaults.system})
    continued = _continued(chat, messages)
    if continued is not None:
        messages = messages[:-1]
    opens = continued is not None or chat.add_generation_prompt is not False
    thinking = model.defaults.thinking.changed(chat.reasoning_effort, chat.template_kwargs)
    text = _render(
        model, messages, chat, {"add_generation_prompt": opens, **thinking.template_values()}
    )
    markers = model.markers
    if continued is None:
        return thinking.ended(text, markers) if opens else text
    if markers is not None and opens_reasoning(text, markers):
        thought = continued.get("reasoning_content") or ""
        text += f"{thought}{markers.close}{_gap(continued)}"
    return text + _said(continued)


def prepare(model: Model, chat: Chat) -> Prompt:
    """Render a chat and turn it into tokens.

    Raises:
        APIError: as ``render``; or it is too long for the context.
        TemplateError: the template refuses the messages.
    """
    text = render(model, chat)
    tokens = model.tokenizer.encode_chat(text)
    if not tokens:
        raise APIError(400, "the chat template writes no text for these messages", param="messages")
    check_length(model, tokens)
    return Prompt(text, tokens, opens_reasoning(text, model.markers))


def count_tokens(model: Model, chat: Chat) -> int:
    """Of how many tokens a chat's prompt is.

    Raises:
        APIError, TemplateError: as ``render``.
    """
    return len(model.tokenizer.encode_chat(render(model, chat)))


def check_length(model: Model, tokens: Sequence[int]) -> None:
    """See that a prompt leaves room for a token.

    Raises:
        APIError: it does not.
    """
    if len(tokens) >= model.context:
        raise too_long(len(tokens), model.context)


def _render(
    model: Model, messages: list[dict[str, Any]], chat: Chat, values: Mapping[str, Any]
) -> str:
    now = datetime.now()
    options = {
        # By these names llama.cpp tells what day it is.
        "date_string": now.strftime("%d %b %Y"),
        "datetime": now.strftime("%b %d %Y"),
        "tools": list(chat.tools) if chat.tools else None,
        "special": model.defaults.special,
        **values,
    }
    template = model.template
    if model.tool_format is GENERIC and (chat.tools or "tool" not in template.source):
        return _render_generic(template, messages, options)
    try:
        return template.render(_with_objects(messages), **options)
    except TemplateError:
        if not any(message.get("tool_calls") for message in messages):
            raise
        # Some templates want the arguments of calls as text, which the API has them in.
        return template.render(messages, **options)


def _render_generic(
    template: ChatTemplate, messages: list[dict[str, Any]], options: dict[str, Any]
) -> str:
    """The prompt of a template that cannot tell of tools."""
    tools, options = options["tools"] or [], {**options, "tools": None}
    try:
        return template.render(with_tools(messages, tools, system=True), **options)
    except TemplateError:
        if not tools:
            raise
        return template.render(with_tools(messages, tools, system=False), **options)


def _continued(chat: Chat, messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The assistant's message that is to be gone on with, if the last one is."""
    if chat.continue_final_message and chat.add_generation_prompt:
        raise APIError(
            400,
            "add_generation_prompt and continue_final_message exclude each other",
            param="continue_final_message",
        )
    last = messages[-1]
    if last.get("role") != "assistant" or chat.continue_final_message is False:
        if chat.continue_final_message:
            raise APIError(
                400,
                "the last message is not the assistant's, so it cannot be continued",
                param="continue_final_message",
            )
        return None
    if len(messages) > 1 and messages[-2].get("role") == "assistant":
        raise APIError(
            400, "only one message of the assistant can be last: it is continued", param="messages"
        )
    if last.get("tool_calls"):
        raise APIError(400, "a message that calls tools cannot be continued", param="messages")
    # Its parts are apart as llama-server has them, which differs from those of other messages.
    text = joined_text(chat.messages[-1].get("content"), "the last message", between="\n\n")
    return {**last, "content": text}


def _said(continued: Mapping[str, Any] | None) -> str:
    return "" if continued is None else continued.get("content") or ""


def _gap(continued: Mapping[str, Any] | None) -> str:
    """What stands between reasoning and the answer that is gone on with."""
    return "\n\n" if _said(continued) else ""


def _message(model: Model, index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its content as text, its role one that the template knows."""
    role, where = message.get("role"), f"messages.{index}"
    content = message.get("content")
    may_be_none = role == "assistant" and ("content" in message or message.get("tool_calls"))
    if content is None and not may_be_none:
        raise APIError(400, f"{where}: there is no content", param="messages")
    made = {key: value for key, value in message.items() if value is not None}
    if role == "developer" and "developer" not in model.template.source:
        made["role"] = "system"
    made["content"] = joined_text(content, where)
    if "reasoning" in made and "reasoning_content" not in made:
        made["reasoning_content"] = made["reasoning"]
    return made


def joined_text(content: Any, where: str, param: str = "messages", *, between: str = "\n") -> str:
    """The text of a content, whose parts stand on lines of their own, as llama-server has it.

    Raises:
        APIError: a part that is no text; ``where`` it is, and the field that it is in.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type", "text")
        if kind not in _TEXTS:
            raise APIError(
                400,
                f"{where}.content.{index}: this model reads text, not {kind!r}",
                param=param,
            )
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise APIError(400, f"{where}.content.{index}: there is no text", param=param)
        texts.append(text)
    return between.join(texts)


def _with_objects(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose calls have their arguments as objects, as most templates want them."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        value = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return dict(call)
    if not isinstance(value, dict):
        return dict(call)
    return {**call, "function": {**function, "arguments": value}}
