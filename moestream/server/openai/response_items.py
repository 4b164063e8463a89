"""From the items of /v1/responses to the messages and tools that templates know."""

from collections.abc import Mapping, Sequence
from typing import Any

from moestream.server.constraints import ToolUse
from moestream.server.errors import APIError
from moestream.server.openai.responses_schema import ResponsesRequest
from moestream.server.prompts import Chat, joined_text

_ROLES = ("user", "assistant", "system", "developer")


def chat_of(asked: ResponsesRequest) -> Chat:
    """What the prompt is made of.

    Raises:
        APIError: items that are none, or that only OpenAI's servers could read.
    """
    messages = _Messages()
    if asked.instructions:
        messages.add("system", asked.instructions)
    if isinstance(asked.input, str):
        messages.add("user", asked.input)
    else:
        for index, item in enumerate(asked.input):
            messages.take(item, f"input.{index}")
    return Chat(
        messages=messages.made,
        tools=None if asked.tool_choice == "none" else tools_of(asked.tools),
        template_kwargs=asked.chat_template_kwargs or {},
        reasoning_effort=asked.reasoning.effort if asked.reasoning else None,
    )


def tool_use(asked: ResponsesRequest) -> ToolUse:
    """Which tools may be called, and which must.

    Raises:
        APIError, RequestError: they make no sense, or OpenAI's servers would run them.
    """
    choice = asked.tool_choice
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise APIError(
                400,
                f"tool_choice: {choice.get('type')!r} is not to be had here, but a function",
                param="tool_choice",
            )
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return ToolUse.of(tools_of(asked.tools), choice, asked.parallel_tool_calls)


def tools_of(given: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Tools as chat completions have them.

    Raises:
        APIError: one that is no function.
    """
    tools = []
    for index, tool in enumerate(given or ()):
        if tool.get("type", "function") != "function":
            raise APIError(
                400,
                f"tools.{index}: {tool['type']!r} is not to be had here, but functions",
                param="tools",
            )
        names = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in names if tool.get(name) is not None}
        tools.append({"type": "function", "function": function})
    return tools


class _Messages:
    """Messages as they come of items: one turn's reasoning, text and calls are one message."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        """Of the tools that were called, by the call."""

    def add(self, role: str, content: str) -> None:
        """Take a text."""
        if role == "assistant":
            last = self._assistant(("content", "tool_calls"))
            last["content"] = content
        else:
            self.made.append({"role": role, "content": content})

    def take(self, item: Mapping[str, Any], where: str) -> None:
        """Take an item.

        Raises:
            APIError: it is none.
        """
        match item.get("type", "message"):
            case "message":
                role = item.get("role")
                if role not in _ROLES:
                    raise APIError(
                        400,
                        f"{where}: role is {role!r}, expected {', '.join(_ROLES)}",
                        param="input",
                    )
                self.add(role, self._text(item.get("content"), where, "content"))
            case "reasoning":
                self._think(item, where)
            case "function_call":
                self._call(item, where)
            case "function_call_output":
                id = _string(item, "call_id", where)
                output = self._text(item.get("output"), where, "output")
                told = {"role": "tool", "tool_call_id": id, "content": output}
                named = {"name": self._names[id]} if id in self._names else {}
                self.made.append(told | named)
            case kind:
                raise APIError(400, f"{where}: {kind!r} cannot be read here", param="input")

    def _think(self, item: Mapping[str, Any], where: str) -> None:
        """Reasoning, which only who encrypted it can read, or all."""
        parts = item.get("content") or item.get("summary") or []
        texts = [_string(part, "text", where) for part in _objects(parts, where)]
        if texts:
            message = self._assistant(("reasoning_content", "content", "tool_calls"))
            message["reasoning_content"] = "\n".join(texts)

    def _call(self, item: Mapping[str, Any], where: str) -> None:
        id, name = _string(item, "call_id", where), _string(item, "name", where)
        self._names[id] = name
        function = {"name": name, "arguments": _string(item, "arguments", where)}
        calls = self._assistant(()).setdefault("tool_calls", [])
        calls.append({"type": "function", "id": id, "function": function})

    def _assistant(self, without: Sequence[str]) -> dict[str, Any]:
        """The assistant's message that is last and has none of these yet; or a new one."""
        last = self.made[-1] if self.made else {}
        if last.get("role") != "assistant" or any(last.get(name) for name in without):
            self.made.append({"role": "assistant", "content": ""})
        return self.made[-1]

    def _text(self, content: Any, where: str, name: str) -> str:
        if content is None:
            raise APIError(400, f"{where}: there is no {name}", param="input")
        if not isinstance(content, str):
            content = _objects(content, f"{where}.{name}")
        return joined_text(content, where, "input")


def _objects(parts: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise APIError(400, f"{where}: expected a list of objects", param="input")
    return parts


def _string(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise APIError(400, f"{where}: there is no {name}", param="input")
    return value
