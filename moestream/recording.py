"""Records the routing of sessions as a trace that ``moestream simulate`` reads.

Owns what a trace says of its model, and which pass is a prefill. The format is ``experts.trace``'s.
"""

import os
from types import TracebackType

from moestream.engine import Engine
from moestream.errors import TraceError
from moestream.experts.store import expert_sizes
from moestream.experts.trace import DECODE, PREFILL, TraceHeader
from moestream.experts.trace_writer import TraceWriter
from moestream.layers.moe import RouteObserver, RoutingEvent
from moestream.session import Session


class TraceRecorder:
    """A trace of an engine's sessions, one turn or more. A context manager."""

    def __init__(self, path: str | os.PathLike[str], engine: Engine) -> None:
        """Create the file, compressed when its name ends in ``.gz``.

        Raises:
            TraceError: the model has no experts.
            OSError: the file cannot be written.
        """
        sizes = expert_sizes(engine.file)
        if not sizes:
            raise TraceError(f"{engine.file.path}: has no experts, so no routing can be traced")
        config = engine.config
        self._writer = TraceWriter(
            path,
            TraceHeader(
                config.num_layers,
                config.num_experts,
                config.num_experts_per_tok,
                sizes,
                model=engine.file.path.name,
                arch=config.architecture,
            ),
        )

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        to_numpy = session.engine.backend.to_numpy

        def record(event: RoutingEvent) -> None:
            self._writer.record(
                turn,
                DECODE if session.decoding else PREFILL,
                len(session.tokens),
                event.layer,
                event.expert_ids,
                to_numpy(event.expert_weights),
                event.resident,
            )

        return record

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()

    def __enter__(self) -> "TraceRecorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
