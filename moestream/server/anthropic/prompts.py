"""From Anthropic's messages, system and tools to those that templates know.

Owns what its blocks become, and the noise that is cut out of system prompts.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moestream.server.anthropic.schemas import CountRequest, ToolChoice, Turn
from moestream.server.constraints import ToolUse
from moestream.server.errors import APIError
from moestream.server.prompts import Chat

_HEADER = "x-anthropic-billing-header:"
_NOISE = re.compile(
    r"x-anthropic-billing-header:(?:[ \t]*[\w.-]+=[^;\n]*(?:;|(?=\n)|\Z))*\s*", re.ASCII
)
"""A header that Claude Code puts before its system prompt; its ``cch`` is another each time."""
_IGNORED = ("redacted_thinking",)
"""Blocks that only those who wrote them can read."""


def without_noise(system: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """The system prompt without a header that changes at each request and is nothing to a model.

    What begins with it would never be found among the prefixes that are kept.
    """
    if isinstance(system, str):
        return _NOISE.sub("", system, count=1) if system.startswith(_HEADER) else system
    if not system or not isinstance(text := system[0].get("text"), str):
        return system
    if not text.startswith(_HEADER):
        return system
    rest = _NOISE.sub("", text, count=1)
    return [{**system[0], "text": rest}, *system[1:]] if rest else system[1:]


def chat_of(asked: CountRequest) -> Chat:
    """What the prompt is made of.

    Raises:
        APIError: blocks that a model of text cannot read.
    """
    messages: list[dict[str, Any]] = []
    if asked.system:
        messages.append({"role": "system", "content": _text(asked.system, "system")})
    names: dict[str, str] = {}
    for index, turn in enumerate(asked.messages):
        messages += _messages(turn, f"messages.{index}", names)
    thinking = asked.thinking
    effort = asked.output_config.effort if asked.output_config else None
    kwargs = dict(asked.chat_template_kwargs or {})
    if thinking is not None and thinking.type == "disabled":
        effort = "none"
    elif thinking is not None:
        kwargs = {"enable_thinking": True, "thinking": True, **kwargs}
    none = asked.tool_choice is not None and asked.tool_choice.type == "none"
    return Chat(
        messages=messages,
        tools=None if none else tools_of(asked.tools),
        template_kwargs=kwargs,
        reasoning_effort=effort,
    )


def tools_of(given: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Tools as OpenAI has them.

    Raises:
        APIError: one that Anthropic's own servers would run, or that has no name.
    """
    tools = []
    for index, tool in enumerate(given or ()):
        if tool.get("type") not in (None, "custom"):
            raise APIError(
                400, f"tools.{index}: {tool['type']!r} is not to be had here", param="tools"
            )
        function: dict[str, Any] = {"name": tool.get("name")}
        if tool.get("description") is not None:
            function["description"] = tool["description"]
        function["parameters"] = tool.get("input_schema") or {"type": "object"}
        tools.append({"type": "function", "function": function})
    return tools


def tool_use(tools: Sequence[Mapping[str, Any]] | None, choice: ToolChoice | None) -> ToolUse:
    """Which tools may be called, and which must.

    Raises:
        APIError, RequestError: they make no sense.
    """
    if choice is None:
        return ToolUse.of(tools_of(tools), None, None)
    if choice.type == "tool" and choice.name is None:
        raise APIError(400, "tool_choice: a tool needs its name", param="tool_choice")
    named = {"type": "function", "function": {"name": choice.name}}
    words = {"auto": "auto", "none": "none", "any": "required"}
    return ToolUse.of(
        tools_of(tools), words.get(choice.type, named), not choice.disable_parallel_tool_use
    )


def _messages(turn: Turn, where: str, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a turn becomes; ``names`` are those of the tools that were called, by the call."""
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
    elif turn.role == "assistant":
        yield _said(turn.content, where, names)
    else:
        yield from _asked(turn, turn.content, where, names)


def _said(blocks: Sequence[Mapping[str, Any]], where: str, names: dict[str, str]) -> dict[str, Any]:
    """The assistant's blocks, which are one message."""
    message: dict[str, Any] = {"role": "assistant"}
    texts, thought, calls = [], "", []
    for index, block in enumerate(blocks):
        at = f"{where}.content.{index}"
        match block.get("type"):
            case "thinking":
                thought += _string(block, "thinking", at)
            case "tool_use":
                id, name = _string(block, "id", at), _string(block, "name", at)
                names[id] = name
                arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
                function = {"name": name, "arguments": arguments}
                calls.append({"type": "function", "id": id, "function": function})
            case kind if kind in _IGNORED:
                pass
            case _:
                texts.append(_block_text(block, at))
    message["content"] = "\n".join(texts)
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    return message


def _asked(
    turn: Turn, blocks: Sequence[Mapping[str, Any]], where: str, names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """The user's blocks: a message for each result of a tool, and for the text between them."""
    texts: list[str] = []
    for index, block in enumerate(blocks):
        at = f"{where}.content.{index}"
        if block.get("type") != "tool_result":
            texts.append(_block_text(block, at))
            continue
        if texts:
            yield {"role": turn.role, "content": "\n".join(texts)}
            texts = []
        id = _string(block, "tool_use_id", at)
        result = _text(block.get("content") or "", f"{at}.content")
        told = {"role": "tool", "tool_call_id": id, "content": result}
        yield {**told, "name": names[id]} if id in names else told
    if texts or not blocks:
        yield {"role": turn.role, "content": "\n".join(texts)}


def _text(content: Any, where: str) -> str:
    """A text, or blocks of text on lines of their own."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise APIError(400, f"{where}: expected text or blocks of text", param=_param(where))
    return "\n".join(_block_text(each, f"{where}.{index}") for index, each in enumerate(content))


def _block_text(block: Any, where: str) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind != "text":
        told = "this model reads text" + (f", not {kind!r}" if kind else "")
        raise APIError(400, f"{where}: {told}", param=_param(where))
    return _string(block, "text", where)


def _string(block: Mapping[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise APIError(400, f"{where}: there is no {name}", param=_param(where))
    return value


def _param(where: str) -> str:
    return where.partition(".")[0]
