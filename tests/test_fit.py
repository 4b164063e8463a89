import pytest

from moestream.forecast.verdict import PROGRAM_BYTES, USABLE_SHARE, Fit, Verdict, judge

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [(64, "fits"), (23, "fits"), (16, "streams"), (8, "streams"), (2, "too big")],
)
def test_a_30b_model(memory: int, verdict: Verdict) -> None:
    fit = judge(memory * GB, int(18.6 * GB), int(17.6 * GB), int(1.1 * GB))
    assert fit.verdict == verdict
    if verdict == "streams":
        assert fit.experts_share is not None
        room = memory * GB * USABLE_SHARE - PROGRAM_BYTES - 1 * GB
        assert fit.experts_share == pytest.approx(room / (17.6 * GB))


def test_needed_memory_is_where_the_verdict_turns() -> None:
    sizes = (int(18.6 * GB), int(17.6 * GB), int(1.1 * GB))
    needed = judge(GB, *sizes).needed_bytes
    assert needed is not None
    assert judge(needed - 1_000, *sizes).verdict == "too big"
    assert judge(needed + 1_000, *sizes).verdict == "streams"


def test_what_is_not_known_is_not_guessed() -> None:
    assert judge(16 * GB, None, None, None) == Fit("unknown", None, None)
    assert judge(16 * GB, 20 * GB, None, None) == Fit("unknown", None, None)
    assert judge(64 * GB, 20 * GB, None, None).verdict == "fits"
