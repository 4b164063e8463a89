"""Whether a model would run in so much memory: wholly in it, streamed, or not at all.

Owns the sums, from a model's sizes alone; what a context takes (keys and values, recurrent states)
comes on top, and is small beside what is left free here.
"""

from dataclasses import dataclass
from typing import Literal

PROGRAM_BYTES = 256 << 20
"""What the program takes beside the weights: libraries, activations, a short context."""
USABLE_SHARE = 0.85
"""Share of the memory that ``--budget auto`` would take at most."""

Verdict = Literal["fits", "streams", "too big", "unknown"]


@dataclass(frozen=True, slots=True)
class Fit:
    """A verdict, and the memory that running takes at least, in bytes, where that is known.

    ``experts_share`` is the part of the experts that is in memory at once.
    """

    verdict: Verdict
    needed_bytes: int | None
    experts_share: float | None


def judge(
    memory_bytes: int,
    size_bytes: int | None,
    expert_bytes: int | None,
    expert_bytes_per_token: int | None,
) -> Fit:
    """Say how a model would run in ``memory_bytes``; sizes that are not known are None."""
    room = int(memory_bytes * USABLE_SHARE) - PROGRAM_BYTES
    if size_bytes is None:
        return Fit("unknown", None, None)
    if size_bytes <= room:
        return Fit("fits", _whole(size_bytes), 1.0)
    if not expert_bytes or expert_bytes_per_token is None:
        return Fit("unknown", None, None)
    dense = size_bytes - expert_bytes
    needed = _whole(dense + expert_bytes_per_token)
    if dense + expert_bytes_per_token > room:
        return Fit("too big", needed, None)
    return Fit("streams", needed, (room - dense) / expert_bytes)


def _whole(weights_bytes: int) -> int:
    return int((weights_bytes + PROGRAM_BYTES) / USABLE_SHARE)
