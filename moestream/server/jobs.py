"""What one sequence is to do, and what is heard of it while it does.

Token ids in, token ids out: text, templates and HTTP are not known here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moestream.engine.options import SamplingParams
from moestream.engine.sampling import NO_BREAKERS, Breakers, Constraint
from moestream.engine.stats import StopReason, TokenTimes
from moestream.errors import MoestreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt, and how it is to be continued.

    ``top_logprobs``: of how many likeliest tokens the logarithms of their chances are told, beside
    the chosen one's; None tells none at all. They are the model's own, before any sampling.
    """

    prompt: Sequence[int]
    sampling: SamplingParams
    max_tokens: int | None = None
    end_ids: frozenset[int] = frozenset()
    breakers: Breakers = NO_BREAKERS
    top_logprobs: int | None = None
    constraint: Constraint | None = None
    predicted: Sequence[int] = ()
    """What the client thinks that the answer will be: to be guessed, where anything is."""
    reuse: bool = True
    """Whether what other sequences have read of the same prompt is taken over."""


class Reading(NamedTuple):
    """So many tokens of the prompt are read, ``cached`` of which were already."""

    done: int
    total: int
    cached: int


class Made(NamedTuple):
    """A new token; with ``top_logprobs``, its own and the likeliest ones', likeliest first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Usage(TokenTimes):
    """The same of one sequence, some of whose prompt others had read, and which had to wait."""

    cached_tokens: int = 0
    queue_s: float = 0.0
    drafts: int = 0
    """Passes with guesses."""
    drafted_tokens: int = 0
    """Tokens that were guessed and run."""
    accepted_tokens: int = 0
    """Those of them that were right."""


class Ended(NamedTuple):
    """The last event of a sequence that went well; the end token itself was not told."""

    reason: StopReason
    usage: Usage


class Failed(NamedTuple):
    """The last event of one that did not."""

    error: MoestreamError


Event = Reading | Made | Ended | Failed
Deliver = Callable[[Sequence[Event]], None]
"""Takes what is new of a sequence; called from the scheduler's thread, and must return at once."""
