"""Memory is given back when the system runs short of it, and only then. No real figures here."""

from pathlib import Path

import pytest

from moestream.streaming.pressure import Pressure, PressureValve, bytes_to_give, read_pressure

MIB = 1 << 20


@pytest.mark.parametrize(
    ("available", "waiting", "given"),
    [
        (500, 0.0, 0),
        (500, 0.9, 0),  # a mapped model waits for its pages: no reason to lock fewer
        (60, 0.0, 0),
        (60, 0.2, 20),
        (20, 0.0, 60),
        (0, 0.0, 80),
    ],
)
def test_what_is_given_back(available, waiting, given):
    assert bytes_to_give(Pressure(1000, available, waiting)) == given


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def valve(figures: list[Pressure]) -> tuple[PressureValve, Clock, list[int]]:
    clock, given = Clock(), []

    def give_back(n_bytes: int) -> int:
        given.append(n_bytes)
        return n_bytes // 2

    return PressureValve(give_back, read=lambda: figures.pop(0), clock=clock), clock, given


def test_figures_are_read_at_most_once_a_second():
    checked, clock, given = valve([Pressure(1000, 0), Pressure(1000, 20)])
    for step in range(21):
        clock.now = 100 + step / 10
        checked.check()
    assert given == [80, 60]
    assert checked.given_bytes == 70


def test_enough_memory_is_left_alone():
    checked, clock, given = valve([Pressure(1000, 600)])
    clock.now += 5
    checked.check()
    assert given == []


def system(tmp_path: Path, machine: str, group: str) -> tuple[Path, Path, Path]:
    folder = tmp_path / "cgroups" / "a"
    folder.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/a\n")
    (folder / "memory.max").write_text(f"{100 * MIB}\n")
    (folder / "memory.current").write_text(f"{98 * MIB}\n")
    (folder / "memory.pressure").write_text(group)
    (tmp_path / "machine").write_text(machine)
    return tmp_path, tmp_path / "cgroups", tmp_path / "machine"


CALM = "some avg10=99.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.50 avg60=9.00 total=1\n"
TENSE = CALM.replace("avg10=0.50", "avg10=25.00")


@pytest.mark.parametrize(("machine", "group"), [(CALM, TENSE), (TENSE, CALM)])
def test_the_tightest_figure_counts(tmp_path, machine, group):
    now = read_pressure(*system(tmp_path, machine, group))
    assert (now.total_bytes, now.available_bytes) == (100 * MIB, 2 * MIB)
    assert now.waiting == 0.25


def test_a_system_without_figures_is_calm(tmp_path):
    now = read_pressure(tmp_path, tmp_path, tmp_path / "nothing")
    assert now.waiting == 0.0
    assert now.total_bytes >= now.available_bytes > 0
