"""Runs jobs on one engine, in a thread of its own."""

import queue
import threading
import time
from dataclasses import dataclass, field

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import BusyError, MoestreamError
from moestream.server.jobs import Deliver, Ended, Failed, Job, Made, Reading, Usage


@dataclass(eq=False, slots=True)
class Ticket:
    """A job that was handed in: what is needed to take it back."""

    job: Job
    deliver: Deliver
    submitted: float = field(default_factory=time.perf_counter)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """End it within a step, with ``Ended("interrupted")`` as its last event."""
        self.cancelled.set()


class Scheduler(Closing):
    """Takes jobs from any thread and runs them; ``close`` ends what runs and what waits."""

    def __init__(self, engine: Engine, *, parallel: int = 4, waiting: int = 64) -> None:
        self.engine = engine
        self.parallel = parallel
        self._waiting: queue.Queue[Ticket | None] = queue.Queue(waiting)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Hand in a job; its events go to ``deliver``, the last one is ``Ended`` or ``Failed``.

        Raises:
            BusyError: as many wait already as may.
            ContextLengthError: the prompt does not fit in the context.
            ValueError: no tokens, or an id outside the vocabulary.
        """
        ticket = Ticket(job, deliver)
        try:
            self._waiting.put_nowait(ticket)
        except queue.Full:
            raise BusyError("all places are taken and the queue is full; try again soon") from None
        return ticket

    def close(self) -> None:
        """End all jobs and the thread."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (ticket := self._waiting.get()) is not None:
            try:
                self._run(ticket)
            except MoestreamError as error:
                ticket.deliver([Failed(error)])

    def _run(self, ticket: Ticket) -> None:
        job, session = ticket.job, self.engine.session()
        usage = Usage(len(job.prompt), queue_s=time.perf_counter() - ticket.submitted)

        def stop() -> bool:
            return self._closing or ticket.cancelled.is_set()

        ticket.deliver([Reading(0, len(job.prompt), 0)])
        made = session.generate(
            job.prompt, job.sampling, max_tokens=job.max_tokens, end_ids=job.end_ids, stop=stop
        )
        for token in made:
            ticket.deliver([Made(token)])
            if stop():
                break
        stats = session.stats
        usage.generated_tokens = stats.generated_tokens
        usage.prompt_s, usage.generation_s = stats.prompt_s, stats.generation_s
        ticket.deliver([Ended(session.stop_reason or "interrupted", usage)])
