"""What is recorded of a pass is written once the pass is whole: one may be broken off."""

import os
from collections.abc import Callable

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.traces.header import header_of
from moestream.traces.writer import TraceWriter


class WholePasses:
    """Holds what a session's pass would write, until it is known to have ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._passes, self._begun = session.passes, session.passes_begun
        self._held: list[Callable[[], None]] = []

    def add(self, write: Callable[[], None]) -> None:
        """Hold what one layer of a pass writes; what is held of the pass before is settled."""
        if self._session.passes_begun != self._begun:
            self.end()
            self._begun = self._session.passes_begun
        self._held.append(write)

    def end(self) -> None:
        """Write what is held if its pass has ended, and forget it otherwise."""
        held, self._held = self._held, []
        if self._session.passes != self._passes:
            for write in held:
                write()
        self._passes = self._session.passes


class PassRecorder(Closing):
    """A recorder that writes whole passes, of one session at a time."""

    _passes: WholePasses | None = None

    def _follow(self, session: Session) -> WholePasses:
        """Settle what is held, and hold what ``session`` does from now on."""
        self._settle()
        self._passes = WholePasses(session)
        return self._passes

    def _settle(self) -> None:
        if self._passes is not None:
            self._passes.end()


class FileRecorder(PassRecorder):
    """One that writes a trace."""

    def __init__(self, path: str | os.PathLike[str], engine: Engine) -> None:
        """Create the file, compressed when its name ends in ``.gz``.

        Raises:
            TraceError: the model has no experts.
            OSError: the file cannot be written.
        """
        self._to_numpy = engine.backend.to_numpy
        self._writer = TraceWriter(path, header_of(engine))

    def close(self) -> None:
        """Write what is left and close the file."""
        self._settle()
        self._writer.close()
