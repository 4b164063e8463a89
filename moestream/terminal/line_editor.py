"""The line editor: several lines, history that is kept between runs, completion, the status below.

Owns the keys. What can be completed, and what a line means, is told and decided elsewhere.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from moestream.terminal.interrupt import Late, Terminated
from moestream.terminal.status import Status

PROMPT, CONTINUATION = "> ", "  "
_TWICE_S = 2.0
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse dim", "prompt": "bold"})


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may stand in place of the last ``length`` characters, each with a word about it."""

    length: int
    items: Sequence[tuple[str, str]] = ()
    files: bool = False
    """Names of files, too."""


Complete = Callable[[str], Candidates | None]
"""Given the text before the cursor; None where nothing is completed."""


class LineEditor:
    """Reads what a user says. It leaves nothing of that on the screen."""

    def __init__(
        self,
        complete: Complete,
        history: History | None = None,
        *,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.late = Late()
        """To be told when an answer was stopped."""
        self._interrupted_at = float("-inf")
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=history or InMemoryHistory(),
            completer=_Completer(complete),
            complete_while_typing=Condition(_begins_with_slash),
            key_bindings=self._keys(),
            style=_STYLE,
            enable_suspend=True,
            erase_when_done=True,  # it would leave no more than fits on the screen
            input=input,
            output=output,
        )
        self._session.default_buffer.on_text_changed += self._forget_interrupt

    def read(self, status: Status) -> str | None:
        """Return what was entered, in one or more lines; None when the user leaves."""

        def toolbar() -> str:
            if self._just_interrupted():
                return "Ctrl-C once more, or Ctrl-D, leaves"
            output = get_app().output
            ascii_only = not output.encoding().lower().startswith("utf")
            return status.line(output.get_size().columns, ascii_only=ascii_only)

        self._interrupted_at = float("-inf")
        while True:
            try:
                return _well_formed(self._session.prompt(bottom_toolbar=toolbar)).rstrip("\n")
            except EOFError:
                return None
            except Terminated:
                raise
            except KeyboardInterrupt:  # before keys are read as keys: meant for an answer, late
                if self.late.covers():
                    continue
                if self._just_interrupted():
                    return None
                self._interrupted_at = time.monotonic()

    def _forget_interrupt(self, buffer: Buffer) -> None:
        if buffer.text:  # twice is: with nothing typed between
            self._interrupted_at = float("-inf")
            self.late.end()

    def _just_interrupted(self) -> bool:
        return time.monotonic() - self._interrupted_at < _TWICE_S

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = has_focus(DEFAULT_BUFFER)

        @keys.add("enter", filter=typing)
        def _(event: KeyPressEvent) -> None:
            _enter(event.current_buffer)

        @keys.add("escape", "enter", filter=typing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=typing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.reset()
            if self.late.covers():
                return
            if self._just_interrupted():
                event.app.exit(exception=EOFError)
            self._interrupted_at = time.monotonic()
            # Until then the line below says what a second Ctrl-C does.
            asyncio.get_running_loop().call_later(_TWICE_S, event.app.invalidate)

        return keys


def open_history(path: Path) -> History:
    """Keep history in a file for this user's eyes alone.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return _History(str(path))


class _History(FileHistory):
    def store_string(self, string: str) -> None:
        # A full disk must not end the chat: the line is in memory.
        with suppress(OSError):
            super().store_string(_well_formed(string))


class _Completer(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        before = document.text_before_cursor
        candidates = self._complete(before)
        if candidates is None:
            return
        for text, meaning in candidates.items:
            yield Completion(text, -candidates.length, display_meta=meaning)
        if candidates.files:
            name = before[len(before) - candidates.length :]
            yield from self._paths.get_completions(Document(name), event)


def _well_formed(text: str) -> str:
    """Read as UTF-8 the bytes that the locale knew nothing of: they come as lone surrogates."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _enter(buffer: Buffer) -> None:
    """Send the text; after a backslash, go on in a new line instead."""
    if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
        buffer.delete_before_cursor()
        buffer.newline(copy_margin=False)
    else:
        buffer.validate_and_handle()


def _begins_with_slash() -> bool:
    return get_app().current_buffer.text.startswith("/")
