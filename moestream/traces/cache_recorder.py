"""Records which experts were in memory whenever a layer asked for some: a cache's whole contents.

Owns the file's format: a comment line, a line of names, then a line a layer and pass, of which the
last column names the experts that were in memory, between spaces. Which were asked for, and with
which weights, is in the routing trace of the same run, under the same turn and step.
"""

import os
from pathlib import Path

from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.errors import TraceError
from moestream.layers.moe import RouteObserver, RoutingEvent
from moestream.traces.format import DECODE, PREFILL
from moestream.traces.passes import PassRecorder
from moestream.traces.writer import RunFile

_HEAD = "# moestream cache contents v1\nturn,phase,step,layer,resident\n"


class CacheRecorder(PassRecorder):
    """What was in memory, layer by layer and pass by pass. A context manager."""

    def __init__(self, path: str | os.PathLike[str], engine: Engine) -> None:
        """Create the file, compressed when its name ends in ``.gz``.

        Raises:
            TraceError: no experts are streamed, so that nothing is known of what is in memory; or
                tokens are guessed ahead, and are heard of when it has changed.
            OSError: the file cannot be written.
        """
        if engine.streaming is None:
            raise TraceError(
                f"{engine.file.path}: no experts are streamed, so there is no cache to trace; "
                "give a budget that they do not all fit into, or say how to stream, as --io direct"
            )
        if engine.drafts.kind != "none":
            raise TraceError(
                f"with --draft {engine.drafts.kind} several tokens ask for experts at once, so "
                "there is no cache to trace token by token; use --draft none"
            )
        self._residency = engine.streaming.residency
        self._file = RunFile(Path(path), _HEAD)

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        passes = self._follow(session)

        def record(event: RoutingEvent) -> None:
            phase = DECODE if session.decoding else PREFILL
            found = " ".join(map(str, self._residency.contents(event.layer)))
            row = f"{turn},{phase},{len(session.tokens)},{event.layer},{found}\n"
            passes.add(lambda: self._file.write(row))

        return record

    def close(self) -> None:
        """Write what is left and close the file."""
        self._settle()
        self._file.close()
