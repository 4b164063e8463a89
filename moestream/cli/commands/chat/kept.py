"""The conversations that chats save by themselves, so that none is lost.

Owns where they lie and how many there are. Their format is ``Conversation``'s.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from moestream import ui
from moestream.chat.conversation import Conversation
from moestream.closing import Closing
from moestream.errors import ConversationError
from moestream.folders import read_text, state_dir, try_lock

_MOST = 100
"""Conversations that are kept; the oldest go."""


def kept_folder() -> Path:
    """Where they lie."""
    return state_dir() / "chats"


def newest() -> Path:
    """The conversation that was gone on with last.

    Raises:
        ConversationError: there is none.
    """
    found = sorted(_all(), key=_modified)
    if not found:
        raise ConversationError(
            f"There is no conversation to continue: {kept_folder()} has none. Begin one without "
            "--continue, or give --load FILE."
        )
    return found[-1]


def model_of(path: Path) -> str | None:
    """The model that a saved conversation was with, if it says so."""
    with suppress(OSError, ValueError, RecursionError):
        value = json.loads(read_text(path))
        if isinstance(value, dict) and isinstance(value.get("model"), str):
            return str(value["model"])
    return None


class Keeper(Closing):
    """Saves a conversation whenever it has changed, each into a file of its own."""

    def __init__(self, path: Path | None = None) -> None:
        """``path`` is of a kept conversation that goes on."""
        self.path = path
        """Where it is; None before its first turn."""
        self.held = False
        """Whether another chat goes on with it: then this one is saved in a file of its own."""
        self._lock: TextIO | None = None
        if path is not None and not self._take(path):
            self.held, self.path = True, None
        self.works = True
        """False once the disk has refused."""
        self._saved: object = None

    def begin_anew(self) -> None:
        """What comes is another conversation: that before stays as it is."""
        self.close()
        self.path = self._saved = None

    def _take(self, path: Path) -> bool:
        """See that no other chat goes on with a conversation; False where one does."""
        try:
            self._lock = try_lock(_lock_of(path))
        except OSError:  # a folder that cannot be written: nothing will be
            return True
        return self._lock is not None

    def close(self) -> None:
        """Let others go on with it."""
        if self._lock is not None and self.path is not None:
            _lock_of(self.path).unlink(missing_ok=True)
            self._lock.close()
        self._lock = None

    def save(self, conversation: Conversation, model: str) -> None:
        """Save it if it has turns and has changed; a disk that refuses is told of once."""
        whole = Conversation(
            conversation.system, [turn for turn in conversation.turns if turn.answer is not None]
        )
        now = (model, whole.messages())
        if not whole.turns or now == self._saved or not self.works:
            return
        try:
            if self.path is None:
                self.path = _new_path()
                self._take(self.path)
            whole.save(self.path, model=_findable(model))
        except OSError as error:
            self.works = False
            self.close()
            self.path = None
            ui.warning(f"{kept_folder()}: {error.strerror}; this conversation is not kept")
        else:
            self._saved = now


def _new_path() -> Path:
    folder = kept_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # for this user's eyes alone
    for old in sorted(_all(), key=_modified)[: 1 - _MOST]:
        with suppress(OSError):
            old.unlink()
            _lock_of(old).unlink(missing_ok=True)
    return folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}.json"


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _all() -> Iterator[Path]:
    return kept_folder().glob("[!.]*.json")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another chat has just deleted it
        return 0.0


def _findable(model: str) -> str:
    """A path that is good in any folder; a name as it is."""
    path = Path(model)
    return str(path.resolve()) if path.exists() else model
