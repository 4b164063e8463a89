"""A template in a process of its own, which ends with what is too long or too large.

Owns that process: its start, its questions and answers, its end. What it does is
``render_worker``'s. It is kept for the template's next use: to start one takes a tenth of a second.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from moestream.errors import TemplateError

_MODULE = "moestream.chat.render_worker"


class RenderingError(Exception):
    """What a template does wrong, in words; ``line`` where it is in its text."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class Renderer:
    """Renders one template, from any thread."""

    def __init__(self, source: str) -> None:
        """Compile the template.

        Raises:
            RenderingError: it is no template.
        """
        self._source = source
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        with self._lock:
            self._start()

    def render(self, names: Mapping[str, Any], now: datetime | None = None) -> str:
        """Return the text; ``names`` are what JSON can hold.

        Raises:
            RenderingError: it refuses, fails, or takes too much.
        """
        request = {"names": dict(names), "now": None if now is None else now.isoformat()}
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._forget()  # it was ended from outside, which is no fault of the template
            return self._ask(self._process or self._start(), request)

    def _start(self) -> "subprocess.Popen[bytes]":
        # What this process imports, the other must find: it may have been told by no variable.
        path = os.pathsep.join(filter(None, sys.path))
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        except OSError as error:
            raise TemplateError(
                f"no process for the chat template could be started: {error.strerror}"
            ) from None
        self._process = process
        self._end = weakref.finalize(self, _stop, process)
        self._ask(process, {"source": self._source})
        return process

    def _ask(self, process: "subprocess.Popen[bytes]", request: dict[str, Any]) -> str:
        """Put a question; whatever happens to the answer, the next is not mistaken for it."""
        assert process.stdin is not None
        assert process.stdout is not None
        question, told, text = json.dumps(request).encode() + b"\n", None, b""
        try:
            with suppress(BrokenPipeError):  # then there is no answer either
                process.stdin.write(question)
                process.stdin.flush()
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                answer = json.loads(line)
                text = process.stdout.read(answer["bytes"])
                told = answer if len(text) == answer["bytes"] else None
        finally:
            # Of a template that does not compile there is nothing more to ask.
            if told is None or ("source" in request and "error" in told):
                self._forget()
        if told is None:
            raise RenderingError(_ended(process))
        if "error" in told:
            raise RenderingError(told["error"], told.get("line"))
        return text.decode("utf-8", "surrogatepass")

    def _forget(self) -> None:
        self._process = None
        self._end()


def _ended(process: "subprocess.Popen[bytes]") -> str:
    """Say why the process is gone."""
    from moestream.chat.render_worker import MOST_MEMORY_BYTES, MOST_SECONDS

    if process.wait() == -signal.SIGALRM:
        return f"it takes more than {MOST_SECONDS:g} seconds"
    return f"it takes more than {MOST_MEMORY_BYTES >> 20} MiB of memory, or breaks its process"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was not yet sent
                stream.close()
