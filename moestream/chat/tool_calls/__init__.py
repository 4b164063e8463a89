"""Tool calls as models write them: which formats there are, and reading them as text comes.

Knows nothing of HTTP, nor of what a call does. What is decided here:

- A call is told as soon as its name is known, and its arguments as they come.
- Its arguments are a JSON object at every end. Where the model was cut off, what is open is closed,
  and a number, a word or a key that may have gone on is left out; ``CallEnd.whole`` is False.
- What is no call is text, its markers too. Where the arguments turn out to be nonsense after some
  were told, the call is closed as above, and all that the model wrote of it is text besides.
- What is cut off before its name was known is text. White space beside calls is told to nobody.
- A name that is none of the request's tools is told as it is: the client knows what to do.

In reading order: ``events``, ``text`` (the
coroutines' way of waiting), ``json_text``, ``calls``, a file for each kind of format, ``formats``,
``finder``, ``generic``.
"""

from moestream.chat.tool_calls.events import CallArguments, CallBegin, CallEnd, CallEvent
from moestream.chat.tool_calls.formats import ToolFormat, find_tool_format
from moestream.chat.tool_calls.generic import GENERIC, with_tools

__all__ = [
    "GENERIC",
    "CallArguments",
    "CallBegin",
    "CallEnd",
    "CallEvent",
    "ToolFormat",
    "find_tool_format",
    "with_tools",
]
