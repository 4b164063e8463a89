"""Tool calls as models write them: which formats there are, and reading them as text comes.

Knows nothing of HTTP, nor of what a call does. In reading order: ``events``, ``text`` (the
coroutines' way of waiting), ``json_text``, ``calls``, a file for each kind of format, ``formats``,
``finder``.
"""

from moestream.chat.tool_calls.events import CallArguments, CallBegin, CallEnd, CallEvent
from moestream.chat.tool_calls.formats import ToolFormat, find_tool_format

__all__ = [
    "CallArguments",
    "CallBegin",
    "CallEnd",
    "CallEvent",
    "ToolFormat",
    "find_tool_format",
]
