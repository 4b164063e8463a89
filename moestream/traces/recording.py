"""Records the routing of sessions: as a trace that ``moestream simulate`` reads, as a profile.

Owns what a trace says of its model, which pass is a prefill, and that a profile is written in the
end, however a run ends. The formats are those of ``traces.format`` and ``profiles.files``.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.errors import ProfileError, TraceError
from moestream.layers.moe import ByLayer, RouteObserver, RoutingEvent
from moestream.profiles import (
    PROFILE_HALF_LIFE,
    Profile,
    UseCounter,
    require_place,
    write_profile,
)
from moestream.streaming.store import expert_sizes
from moestream.traces.cache_recorder import CacheRecorder
from moestream.traces.format import DECODE, PREFILL
from moestream.traces.guess_recorder import GuessRecorder
from moestream.traces.passes import FileRecorder, PassRecorder


class TraceRecorder(FileRecorder):
    """A trace of an engine's sessions, one turn or more. A context manager."""

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        to_numpy, passes = self._to_numpy, self._follow(session)

        def record(event: RoutingEvent) -> None:
            row = (
                turn,
                DECODE if session.decoding else PREFILL,
                len(session.tokens),
                event.layer,
                event.expert_ids,
                to_numpy(event.expert_weights),
                event.resident,
            )
            passes.add(lambda: self._writer.record(*row))

        return record


class ProfileRecorder(PassRecorder):
    """Counts what an engine's sessions use, and writes a profile when closed, or when asked to."""

    def __init__(
        self,
        path: Path | None,
        engine: Engine,
        *,
        half_life: float = PROFILE_HALF_LIFE,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start to count; ``options`` tell the profile's reader what the workload was.

        Without a ``path``, nothing is written in the end.

        Raises:
            ProfileError: the model has no experts, or ``path`` is one that cannot be written.
        """
        if path is not None:
            require_place(path)
        self.saved: Profile | None = None
        """What was written; None before ``close``, and if nothing was routed."""
        self.path = path
        self._model = engine.file.path.name
        self._fingerprint = engine.fingerprint()
        self._complete = engine.counted_elsewhere
        self._options = dict(options or {})
        layers, count = self._fingerprint.expert_bytes, self._fingerprint.num_experts
        self._counter = UseCounter(layers, count, half_life)
        engine.count_elsewhere(half_life)

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` from now on."""
        passes = self._follow(session)

        def record(event: RoutingEvent) -> None:
            layer, ids = event.layer, event.expert_ids
            passes.add(lambda: self._counter.add(layer, ids))

        return ByLayer(record)

    def count(self, event: RoutingEvent) -> None:
        """Count one event, of whichever sequence; a pass that is broken off counts so far."""
        self._counter.add(event.layer, event.expert_ids)

    def save(self, path: Path) -> Profile:
        """Write a profile of what was counted so far, and go on counting.

        Raises:
            ProfileError: nothing was, or the disk refuses.
        """
        return write_profile(self._counted(path), path)

    def close(self) -> None:
        """Write the profile, if any token was routed and there is a path for it.

        Raises:
            ProfileError: the disk refuses.
        """
        if self.path is not None and (counted := self._counted(self.path)).tokens:
            self.saved = write_profile(counted, self.path)

    def _counted(self, path: Path) -> Profile:
        self._settle()
        counted = self._counter.profile(path.stem, self._model, self._fingerprint, self._options)
        return self._complete(counted)


class Recording(Closing):
    """What a run was asked to record: trace, guesses, cache, profile. A context manager."""

    def __init__(
        self,
        engine: Engine,
        *,
        trace: Path | None = None,
        guesses: Path | None = None,
        cache: Path | None = None,
        profile: Path | None = None,
        counting: bool = False,
    ) -> None:
        """Begin; ``counting`` makes a profile possible at any time, if the model has experts.

        Raises:
            TraceError, ProfileError, OSError: see ``TraceRecorder`` and ``ProfileRecorder``.
        """
        asked = any(each is not None for each in (trace, guesses, cache))
        if asked and engine.config.part is not None:  # whose other layers nobody hears of
            raise TraceError(
                "a trace is of a whole model, and here machines share one; record it on one "
                "machine, without mlx.launch"
            )
        unsure = engine.machines > 1 and engine.drafts.kind != "none"
        if unsure and profile is not None:  # what they guessed is taken back by the first alone
            raise ProfileError(
                "with --draft, other machines do not know which tokens stay, so their uses of "
                "experts cannot be counted; use --draft none"
            )
        counting = counting and not unsure and bool(expert_sizes(engine.file))
        counting = counting or profile is not None
        self.profile: ProfileRecorder | None = None
        self.trace: TraceRecorder | None = None
        self.guesses: GuessRecorder | None = None
        self.cache: CacheRecorder | None = None
        with ExitStack() as stack:  # what was begun ends where the next cannot begin
            if counting:
                self.profile = stack.enter_context(ProfileRecorder(profile, engine))
            if trace is not None:
                self.trace = stack.enter_context(TraceRecorder(trace, engine))
            if guesses is not None:
                self.guesses = stack.enter_context(GuessRecorder(guesses, engine))
            if cache is not None:
                self.cache = stack.enter_context(CacheRecorder(cache, engine))
            self._stack = stack.pop_all()

    def observer(self, session: Session, turn: int = 0) -> RouteObserver | None:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        asked = (self.trace, self.guesses, self.cache, self.profile)
        observers = [to.observer(session, turn) for to in asked if to is not None]
        if len(observers) < 2:
            return observers[0] if observers else None

        def record(event: RoutingEvent) -> None:
            for observe in observers:
                observe(event)

        return record

    def close(self) -> None:
        """End all recordings: a profile is written now."""
        self._stack.close()
