"""What a client is told of a prompt that is read."""

import pytest

from moestream.engine.session import StopReason
from moestream.server.jobs import Ended, Event, Made, Reading, Usage
from moestream.server.progress import Progress

END: StopReason = "length"


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([Reading(0, 9, 0), Made(1), Made(2)], [(0, 0), (9, 0)]),
        ([Reading(0, 9, 0), Reading(4, 9, 0), Made(1)], [(0, 0), (4, 0), (9, 0)]),
        ([Reading(0, 9, 0), Reading(3, 9, 3), Reading(6, 9, 3), Made(1)], [(3, 3), (6, 3), (9, 3)]),
        ([Reading(0, 9, 0), Reading(8, 9, 8), Made(1)], [(8, 8), (9, 8)]),
        ([Reading(0, 9, 0), Ended(END, Usage())], []),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_from_what_was_kept_to_the_end(
    heard: list[Event], told: list[tuple[int, int]], at_once: bool
) -> None:
    progress = Progress()
    batches = [heard] if at_once else [[event] for event in heard]
    found = [each for batch in batches for each in progress.hear(batch)]
    assert [(each.done, each.cached) for each in found] == told
