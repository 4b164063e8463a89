"""Whose next token is made when: passes of the sequences that write.

Owns the passes under way: one, or where machines share a model, as many as there are machines, each
of a part of the sequences, so that no machine waits while another computes. Rows come back in the
order in which they were sent off. When steps are done is the scheduler's.
"""

from collections import deque
from collections.abc import Sequence

from moestream.server.guesses import Guesses
from moestream.server.passes import Members, Passes, Prefill
from moestream.server.sequence import SequenceRun, State


class TokenWriter:
    """Begins passes of a token each, or several that are guessed, and brings them to their end."""

    def __init__(self, passes: Passes, machines: int) -> None:
        """``machines`` share the model."""
        self._passes = passes
        self._most = machines
        self.under_way: deque[Prefill] = deque()
        """Sent off, in their order; between two steps, those of other machines alone."""

    @property
    def members(self) -> list[SequenceRun]:
        """The sequences of all passes under way."""
        return [sequence for prefill in self.under_way for sequence, _ in prefill.members]

    def next(self, running: Sequence[SequenceRun]) -> Prefill | None:
        """Send off what can be, then run the oldest pass to its end; None where there is none."""
        while len(self.under_way) < self._most and (members := self._choose(running)):
            prefill = self._passes.begin(members, _guess(members, running))
            if prefill is not None and self._goes_off(prefill):
                self.under_way.append(prefill)
        return self.take_in()

    def take_in(self) -> Prefill | None:
        """Run the oldest pass to its end."""
        if not self.under_way:
            return None
        prefill = self.under_way.popleft()
        while not self._passes.advance(prefill):
            pass
        self._passes.end(prefill)
        return prefill

    def leave_all(self) -> None:
        """Leave all passes where they are."""
        while self.under_way:
            prefill = self.under_way.popleft()
            self._passes.end(prefill)
            for sequence, _ in prefill.members:
                if sequence.is_sound:
                    sequence.break_off()

    def _choose(self, running: Sequence[SequenceRun]) -> Members:
        """An equal part of those that write, of such as are not under way."""
        writing = [s for s in running if s.state is State.WRITING and not s.cut()]
        busy = self.members
        free = [sequence for sequence in writing if sequence not in busy]
        return [(sequence, sequence.pending) for sequence in free[: -(-len(writing) // self._most)]]

    def _goes_off(self, prefill: Prefill) -> bool:
        """Run it to where it waits for another machine; False where it failed."""
        if self._most == 1:
            return True
        while not prefill.under_way.waits:
            if self._passes.advance(prefill):
                self._passes.end(prefill)
                return False
        return True


def _guess(members: Members, running: Sequence[SequenceRun]) -> Guesses | None:
    """Guess for a sequence that writes alone."""
    writing = [sequence for sequence in running if sequence.state is State.WRITING]
    return Guesses.of(writing) if len(writing) == len(members) else None
