"""Tools for models whose chat template has none, or none whose calls are known.

Owns the words that tell such a model of tools, of its own calls and of their results: those that
Hermes and Qwen were trained on, which others follow best. What comes of it is no better than the
model; a call that is required is enforced as in any other format.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moestream.chat.tool_calls.formats import HERMES

GENERIC = replace(HERMES, name="generic")
_TOOLS = """\
You may call functions. These are their signatures, each a line of JSON:
<tools>
{tools}
</tools>
To call one, answer with a JSON object that has its name and its arguments, between these tags:
<tool_call>
{{"name": NAME, "arguments": OBJECT}}
</tool_call>"""


def with_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, system: bool
) -> list[dict[str, Any]]:
    """Messages that tell of the tools, as text alone.

    Told in the system message; without ``system``, of which some templates know nothing, in the
    user's first one.
    """
    made = _as_text(messages)
    if not tools:
        return made
    told = _TOOLS.format(tools="\n".join(map(_json, tools)))
    role = "system" if system else "user"
    if not made or (system and made[0].get("role") != "system"):
        return [{"role": role, "content": told}, *made]
    at = next((index for index, each in enumerate(made) if each.get("role") == role), 0)
    said = made[at]["content"]
    made[at]["content"] = f"{said}\n\n{told}" if system else f"{told}\n\n{said}"
    return made


def _as_text(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose calls and their results are text.

    Results that follow each other are one message: the turns of many templates must alternate.
    """
    made: list[dict[str, Any]] = []
    before = None
    for message in messages:
        content = message.get("content") or ""
        if message.get("role") == "tool":
            told = f"<tool_response>\n{content}\n</tool_response>"
            if before == "tool":
                made[-1]["content"] += f"\n{told}"
            else:
                made.append({"role": "user", "content": told})
        else:
            calls = [_call(call.get("function", call)) for call in message.get("tool_calls") or ()]
            kept = {key: value for key, value in message.items() if key != "tool_calls"}
            made.append({**kept, "content": "\n".join(filter(None, (content, *calls)))})
        before = message.get("role")
    return made


def _call(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else _json(arguments or {})
    name = _json(function.get("name"))
    return f'<tool_call>\n{{"name": {name}, "arguments": {text or "{}"}}}\n</tool_call>'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
