"""The sequences that wait and run, and what all of them took: for /slots and /metrics.

Used on the event loop's thread alone, so that nothing here is locked.
"""

import itertools
import time
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from moestream.server.jobs import Ended, Event, Failed, Job, Made, Reading, Usage
from moestream.server.scheduler import Ticket


@dataclass(eq=False, slots=True)
class Sequence:
    """One job on its way. ``number`` counts all that there ever were."""

    number: int
    job: Job
    ticket: Ticket
    began: float = field(default_factory=time.perf_counter)
    started: float | None = None
    """When the prompt began to be read; None while it waits."""
    read: int = 0
    cached: int = 0
    made: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    """When the first and the last token came."""
    ended: Ended | Failed | None = None

    def hear(self, events: SequenceOf[Event]) -> None:
        """Take note of what is new."""
        now = time.perf_counter()
        for event in events:
            match event:
                case Made():
                    self.first_at = self.first_at or now
                    self.made, self.last_at = self.made + 1, now
                case Reading():
                    self.started = self.started or now
                    self.read, self.cached = event.done, event.cached
                case _:
                    self.ended = event

    @property
    def has_end(self) -> bool:
        """Whether it ended with a token for that, which was made and is told to nobody."""
        return isinstance(self.ended, Ended) and self.ended.reason == "end"

    def usage(self) -> Usage:
        """Counts and times: the scheduler's once it has told them, until then as heard here."""
        if isinstance(self.ended, Ended):
            return self.ended.usage
        started = self.started or self.began
        return Usage(
            prompt_tokens=len(self.job.prompt),
            cached_tokens=self.cached,
            generated_tokens=self.made,
            queue_s=started - self.began,
            prompt_s=max(self.first_at - started, 0.0),
            generation_s=self.last_at - self.first_at,
        )


@dataclass(slots=True)
class Totals:
    """What all sequences that have ended took."""

    requests: dict[str, int] = field(default_factory=dict)
    """By how they ended: a reason, or ``failed``."""
    usage: Usage = field(default_factory=Usage)
    refused: int = 0
    """Requests that found no place."""
    longest: int = 0
    """Tokens of the longest sequence."""


class Activity:
    """All sequences that wait or run."""

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []
        self.totals = Totals()
        self._numbers = itertools.count()

    def begin(self, job: Job, ticket: Ticket) -> Sequence:
        """Note a job that was handed in."""
        sequence = Sequence(next(self._numbers), job, ticket)
        self.sequences.append(sequence)
        return sequence

    def end(self, sequence: Sequence) -> None:
        """Note that nothing more will be heard of it."""
        if sequence not in self.sequences:
            return
        self.sequences.remove(sequence)
        ended, totals, usage = sequence.ended, self.totals, sequence.usage()
        how = ended.reason if isinstance(ended, Ended) else "failed"
        totals.requests[how] = totals.requests.get(how, 0) + 1
        total = totals.usage
        total.prompt_tokens += usage.prompt_tokens
        total.cached_tokens += usage.cached_tokens
        total.generated_tokens += sequence.made + sequence.has_end
        total.queue_s += usage.queue_s
        total.prompt_s += usage.prompt_s
        total.generation_s += usage.generation_s
        total.drafts += usage.drafts
        total.drafted_tokens += usage.drafted_tokens
        total.accepted_tokens += usage.accepted_tokens
        totals.longest = max(totals.longest, usage.prompt_tokens + sequence.made)

    def cancel(self) -> None:
        """End all that wait and run."""
        for sequence in self.sequences:
            sequence.ticket.cancel()

    @property
    def running(self) -> list[Sequence]:
        """Those that have a place."""
        return [each for each in self.sequences if each.started is not None]
