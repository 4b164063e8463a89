"""Remembered routing: chunks, passes in between, and who is forgotten."""

import numpy as np
import pytest

from moestream.streaming.remembered import RememberedRouting


def ids(*experts: int) -> np.ndarray:
    return np.array([[expert, expert + 50] for expert in experts], np.int32)


def recalled(remembered: RememberedRouting, *tokens: int) -> list[list[int]]:
    """The first expert of each token, by layer, after a pass of these has begun."""
    remembered.begin(np.array(tokens, np.int32))
    return remembered.of_pass()[:, :, 0].tolist()


def test_a_prompt_in_chunks_is_remembered_row_by_row():
    remembered = RememberedRouting([3, 4])
    remembered.begin(np.array([10, 11, 12], np.int32))
    for layer in (3, 4):
        remembered.learn(layer, ids(layer, layer + 1))
        remembered.learn(layer, ids(layer + 2))
    assert recalled(remembered, 12, 10, 77) == [[5, 6], [3, 4], [-1, -1]]


def test_another_pass_in_between_is_not_taken_for_this_one():
    remembered = RememberedRouting([0])
    remembered.begin(np.array([10, 11], np.int32))
    remembered.learn(0, ids(1, 2))
    remembered.begin(np.array([12], np.int32))
    remembered.learn(0, ids(8, 9))  # of the pass that is still under way
    assert recalled(remembered, 12, 10) == [[-1], [1]]


@pytest.mark.parametrize("at_once", [True, False])
def test_who_came_longest_ago_is_forgotten_first(at_once: bool):
    remembered = RememberedRouting([0], most=3)
    for tokens in [[1, 2, 3, 1, 4]] if at_once else [[1], [2], [3], [1], [4]]:
        remembered.begin(np.array(tokens, np.int32))
        remembered.learn(0, ids(*[token + 20 for token in tokens]))
    assert recalled(remembered, 4, 1, 3) == [[24], [21], [23]]
    assert recalled(remembered, 2) == [[-1]]
