"""Compare our rendering of chat templates with transformers' and llama.cpp's.

    pip install transformers llama-cpp-python==0.3.36
    python scripts/oracle/check_templates.py [TEMPLATE.jinja...] [--golden FILE]

Each template file is rendered for every chat in `CHATS` by us and by transformers: both must give
the same text, or both refuse. Each of our named templates is compared with llama.cpp's built-in
one of the same name. --golden writes transformers' texts for the tests; templates that are in the
file already stay in it. The last line is JSON,
the exit status 1 if anything differs. `LLAMA_CPP_LIB_PATH`: see libllama.py.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

from moestream.chat.named import TEMPLATES
from moestream.chat.template import ChatTemplate
from moestream.errors import TemplateError

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from oracle.vocabulary import apply_template

TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Look up the weather: <b>"now"</b> & later, in °C',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "where, e.g. Città"}},
            "required": ["city"],
        },
    },
}
_SYSTEM = {"role": "system", "content": "You are <b>brief</b>.\n"}
_USER = {"role": "user", "content": "  What is the capital of Italy? "}
_ANSWER = {"role": "assistant", "content": 'It\'s Rome & "that" is it.\n'}
_SECOND = {"role": "user", "content": "{{ 1 + 1 }} こんにちは"}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call12345",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Zürich"}},
        }
    ],
}
_RESULT = {
    "role": "tool",
    "name": "get_weather",
    "tool_call_id": "call12345",
    "content": '{"temperature": 21}',
}
_THOUGHT_CALL = {**_CALL, "reasoning_content": "It must be looked up."}
_TWO_CALLS = {
    **_CALL,
    "content": None,
    "tool_calls": [
        *_CALL["tool_calls"],
        {
            "id": "call67890",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Bern", "days": [1, 2.5]}},
        },
    ],
}
_OTHER_RESULT = {**_RESULT, "tool_call_id": "call67890", "content": "cold & <wet>"}
CHATS: dict[str, dict[str, Any]] = {
    "user": {"messages": [_USER]},
    "system": {"messages": [_SYSTEM, _USER]},
    "turns": {"messages": [_USER, _ANSWER, _SECOND]},
    "system turns": {"messages": [_SYSTEM, _USER, _ANSWER, _SECOND]},
    "no opening": {"messages": [_USER, _ANSWER], "add_generation_prompt": False},
    "tools": {"messages": [_USER], "tools": [_TOOL]},
    "system tools": {"messages": [_SYSTEM, _USER], "tools": [_TOOL]},
    "called": {"messages": [_USER, _CALL, _RESULT], "tools": [_TOOL]},
    "thinking": {"messages": [_USER], "enable_thinking": True},
    "not thinking": {"messages": [_USER], "enable_thinking": False},
    "reasoning": {
        "messages": [_USER, {**_ANSWER, "reasoning_content": "Hm."}, _SECOND],
    },
    "thought, then called": {"messages": [_SYSTEM, _USER, _THOUGHT_CALL], "tools": [_TOOL]},
    "called, then answered": {
        "messages": [_USER, _THOUGHT_CALL, _RESULT, _ANSWER, _SECOND],
        "tools": [_TOOL],
    },
    "two calls": {
        "messages": [_USER, _TWO_CALLS, _RESULT, _OTHER_RESULT],
        "tools": [_TOOL],
    },
    "two of a role": {"messages": [_USER, _SECOND]},
}
# What both can say: roles and contents alone.
PLAIN = ("user", "system", "turns", "system turns", "no opening")
_EOS = {"zephyr": "<|endoftext|>", "deepseek2": "<｜end▁of▁sentence｜>"}
_EOS["deepseek3"] = _EOS["deepseek2"]


TODAY = datetime(2026, 1, 31, tzinfo=UTC)
"""What a template is told that asks for the date."""


def main() -> int:
    """Print a table of the templates and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("templates", nargs="*", type=Path)
    parser.add_argument("--golden", type=Path, help="file to write for the tests, .json.xz")
    options = parser.parse_args()
    files = {path.name: check_file(path) for path in options.templates}
    names = {name: check_name(name) for name in TEMPLATES}
    if options.golden:
        write_golden(options.templates, options.golden)
    total = {
        verdict: sum(row[verdict] for row in files.values())
        for verdict in ("same", "both_refuse", "differ")
    }
    wrong = [name for name, row in files.items() if row["differ"]]
    wrong += [name for name, same in names.items() if not same]
    print(json.dumps({"files": len(files), **total, "names": len(names), "wrong": wrong}))
    return 1 if wrong else 0


def check_file(path: Path) -> dict[str, int]:
    """Compare a template file with transformers on all chats."""
    source = path.read_text(encoding="utf-8")
    row = {"same": 0, "both_refuse": 0, "differ": 0}
    for chat in CHATS.values():
        ours, theirs = _ours(source, chat), _theirs(source, chat)
        if ours != theirs:
            row["differ"] += 1
        else:
            row["same" if ours is not None else "both_refuse"] += 1
    print(f"{path.name:55} {row}", flush=True)
    return row


def check_name(name: str) -> bool:
    """Compare one of our named templates with llama.cpp's."""
    template = ChatTemplate.from_source(TEMPLATES[name], eos_token=_EOS.get(name, "</s>"))
    same = all(template.render(**CHATS[label]) == _llama_cpp(name, label) for label in PLAIN)
    print(f"{name:55} {'same' if same else 'DIFFERS'}", flush=True)
    return same


def write_golden(paths: list[Path], target: Path) -> None:
    """Write what transformers makes of the templates, null where it refuses, and llama.cpp's."""
    templates = {}
    if target.exists():
        held = json.loads(lzma.decompress(target.read_bytes()))["templates"]
        templates = {name: each["source"] for name, each in held.items()}
    templates |= {path.name: path.read_text(encoding="utf-8") for path in paths}
    data = {
        "tokens": TOKENS,
        "today": TODAY.isoformat(),
        "chats": CHATS,
        "templates": {
            name: {
                "source": source,
                "expected": {label: _theirs(source, chat) for label, chat in CHATS.items()},
            }
            for name, source in templates.items()
        },
        "names": {name: {label: _llama_cpp(name, label) for label in PLAIN} for name in TEMPLATES},
        "eos_of_names": _EOS,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    target.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def _ours(source: str, chat: dict[str, Any]) -> str | None:
    try:
        template = ChatTemplate.from_source(source, **TOKENS)
        return template.render(**chat, now=TODAY)
    except TemplateError:
        return None


def _llama_cpp(name: str, label: str) -> str:
    chat = CHATS[label]
    pairs = [(message["role"], message["content"]) for message in chat["messages"]]
    return apply_template(name, pairs, open_answer=chat.get("add_generation_prompt", True))


class _Today(datetime):
    """What transformers takes for the class that knows the time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        """Always the same."""
        return TODAY


def _theirs(source: str, chat: dict[str, Any]) -> str | None:
    names = {"add_generation_prompt": True, **TOKENS, **chat}
    messages = names.pop("messages")
    try:
        chat_template_utils.datetime = _Today
        rendered, _ = render_jinja_template([messages], chat_template=source, **names)
    except Exception:
        return None
    text: str = rendered[0]
    return text


if __name__ == "__main__":
    sys.exit(main())
