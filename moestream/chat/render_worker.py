"""The process that chat templates run in, so that none takes what is not its own.

A template comes from anywhere: it may loop for ever, or ask for ``'a' * 10**12``, and no sandbox
within a process stops a single step of it. Here the system does: a timer that ends this process, a
limit of its memory. Reads requests from standard input, one a line of JSON: first ``source``, then
``names`` any number of times. Answers each with a line of JSON, and the text after it.

Owns the limits and the format. Knows nothing of models, nor of who asks: that is ``renderer``.
"""

import json
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from moestream.chat.sandbox import compile_template

MOST_SECONDS = 2.0
MOST_OUTPUT_BYTES = 16 << 20
MOST_MEMORY_BYTES = 512 << 20
_LONGEST_MESSAGE = 500


class _TooLongError(Exception):
    pass


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the end, whatever is being computed
    with suppress(ValueError, OSError):  # a system without this limit, or a stricter one
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    template: Template | None = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        text, told = b"", {}
        try:
            if template is None:
                template = compile_template(request["source"])
            else:
                text = _render(template, request["names"], request["now"])
        except BaseException as error:  # a template is a program: anything can go wrong in it
            told = _describe(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(json.dumps({"bytes": len(text), **told}).encode() + b"\n" + text)
        sys.stdout.buffer.flush()


def _render(template: Template, names: dict[str, Any], now: str | None) -> bytes:
    if now is not None:
        names["strftime_now"] = datetime.fromisoformat(now).strftime
    parts, size = [], 0
    for part in template.generate(names):
        parts.append(part.encode("utf-8", "surrogatepass"))
        size += len(parts[-1])
        if size > MOST_OUTPUT_BYTES:
            raise _TooLongError
    return b"".join(parts)


def _describe(error: BaseException) -> dict[str, Any]:
    if isinstance(error, TemplateSyntaxError):
        return {"error": str(error.message)[:_LONGEST_MESSAGE], "line": error.lineno}
    if isinstance(error, _TooLongError):
        return {"error": f"it writes more than {MOST_OUTPUT_BYTES >> 20} MiB"}
    if isinstance(error, MemoryError):
        return {"error": f"it takes more than {MOST_MEMORY_BYTES >> 20} MiB of memory"}
    return {"error": (str(error) or type(error).__name__)[:_LONGEST_MESSAGE]}


if __name__ == "__main__":
    main()
