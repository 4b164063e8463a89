"""What the server is doing as a whole: loading, ready or closing; and who is let in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import Request

from moestream.server.activity import Activity
from moestream.server.errors import busy
from moestream.server.model import Model
from moestream.server.options import ServerOptions


def _tell_nobody(line: str) -> None:
    """For a server without a log."""


@dataclass(slots=True)
class State:
    """Shared by all requests; changed on the event loop's thread alone."""

    options: ServerOptions
    activity: Activity = field(default_factory=Activity)
    phase: Literal["loading", "ready", "closing"] = "loading"
    log: Callable[[str], None] = _tell_nobody
    """Takes a line for each request."""
    warn: Callable[[str], None] = _tell_nobody
    """Takes a line on what went wrong with one."""
    _told: set[str] = field(default_factory=set)
    _model: Model | None = None
    _admitted: int = 0

    @property
    def model(self) -> Model:
        """The model, once it is there.

        Raises:
            APIError: it is not yet, or no more.
        """
        if self.phase == "loading" or self._model is None:
            raise busy("Loading model")
        if self.phase == "closing":
            raise busy("the server is closing")
        return self._model

    def check(self) -> None:
        """See that the model can still be asked: ``close`` ends only what was handed in by then.

        Raises:
            APIError: it cannot.
        """
        _ = self.model

    def tell_once(self, line: str) -> None:
        """Tell of something, the first time alone."""
        if line not in self._told:
            self._told.add(line)
            self.warn(line)

    def serve(self, model: Model) -> None:
        """From now on this model is asked."""
        self._model, self.phase = model, "ready"

    def close(self) -> None:
        """Let nobody in any more, and end the answers that are being written."""
        self.phase = "closing"
        self.activity.cancel()
        if self._model is not None:
            self._model.onlookers.close()

    @contextmanager
    def admitted(self) -> Iterator[Model]:
        """Let a request in that is to be answered by the model.

        Raises:
            APIError: there are too many, or there is no model.
        """
        model = self.model
        if self._admitted >= self.options.parallel + self.options.waiting:
            self.activity.totals.refused += 1
            raise busy("all places are taken and the queue is full; try again soon")
        self._admitted += 1
        try:
            yield model
        finally:
            self._admitted -= 1


def state_of(request: Request) -> State:
    """The state of the server that a request was made to."""
    state: State = request.app.state.server
    return state
