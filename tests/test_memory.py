"""Budgets: the machine's and the containers' limits, and how an amount is divided."""

import gc
import weakref
from pathlib import Path

import pytest

from moestream.errors import BudgetError
from moestream.streaming.memory import (
    Memory,
    MemoryPlan,
    available_memory,
    keep_from_collector,
    plan_memory,
    process_memory,
    return_freed_memory,
)

MIB = 1 << 20
MACHINE = Memory(1000 * MIB, 800 * MIB, "the machine")


def plan(budget: str, **changes) -> MemoryPlan:
    values = {
        "dense_bytes": 60 * MIB,
        "kv_bytes": 20 * MIB,
        "floor_bytes": 80 * MIB,
        "total_expert_bytes": 1300 * MIB,
        "process_bytes": 40 * MIB,
        "memory": MACHINE,
    }
    return plan_memory(budget, **(values | changes))


def write_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def cgroup_file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text(text)
    return tmp_path / "proc"


def test_experts_get_what_the_others_leave():
    parts = plan("500M")
    own = parts.process_bytes
    assert own >= 40 * MIB
    assert parts.experts_bytes == 500 * MIB - 60 * MIB - 20 * MIB - own
    assert parts.warning is None


@pytest.mark.parametrize(
    ("budget", "amount"), [("640M", 640 * MIB), ("0.5G", 512 * MIB), ("50%", 500 * MIB)]
)
def test_amounts(budget, amount):
    assert plan(budget).budget_bytes == amount


def test_auto_is_what_is_available_less_room_for_others():
    amount = plan("auto").budget_bytes
    assert 0.5 * 840 * MIB < amount < 840 * MIB


def test_below_the_floor_there_is_a_warning_with_the_number_that_would_do():
    parts = plan("200M")
    assert parts.warning is not None
    needed = parts.warning.split("Give --budget ")[1].split(",")[0]
    assert plan(needed).warning is None
    assert plan(f"{int(needed[:-1]) - 1}M").warning is not None


def test_a_model_smaller_than_its_floor_is_no_cause_for_warning():
    assert plan("200M", total_expert_bytes=10 * MIB).warning is None


def test_nothing_left_is_no_error():
    assert plan("10M").experts_bytes == 0


@pytest.mark.parametrize("budget", ["", "x", "0", "-5M", "10X", "5G", "6", "500000"])
def test_what_is_no_budget(budget):
    with pytest.raises(BudgetError):
        plan(budget)


def test_more_than_there_is_says_what_there_is():
    with pytest.raises(BudgetError, match=r"2048M is more than the 1000M of the machine"):
        plan("2G")


def test_cgroup_v1_limit_and_what_it_can_reclaim(tmp_path):
    process = cgroup_file(tmp_path, "5:cpu:/other\n4:memory:/a/b\n")
    group = tmp_path / "cg" / "memory" / "a" / "b"
    write_group(
        group,
        memory__limit_in_bytes=500 * MIB,
        memory__usage_in_bytes=300 * MIB,
        memory__stat=f"cache 9\ntotal_inactive_file {100 * MIB}\ntotal_active_file {50 * MIB}",
    )
    write_group(tmp_path / "cg" / "memory", memory__limit_in_bytes=9223372036854771712)
    memory = available_memory(process, tmp_path / "cg")
    assert memory.total_bytes == 500 * MIB
    assert memory.available_bytes == 350 * MIB
    assert memory.limited_by == "cgroup /a/b"


def test_the_tightest_group_above_counts(tmp_path):
    process = cgroup_file(tmp_path, "0::/a/b\n")
    write_group(tmp_path / "cg" / "a", memory__max=300 * MIB, memory__current=0)
    write_group(tmp_path / "cg" / "a" / "b", memory__max="max", memory__current=0)
    memory = available_memory(process, tmp_path / "cg")
    assert (memory.total_bytes, memory.limited_by) == (300 * MIB, "cgroup /a")


def test_in_a_container_its_group_is_the_root(tmp_path):
    process = cgroup_file(tmp_path, "0::/docker/of/the/host\n")
    write_group(tmp_path / "cg", memory__max=200 * MIB, memory__current=20 * MIB)
    memory = available_memory(process, tmp_path / "cg")
    assert (memory.total_bytes, memory.available_bytes) == (200 * MIB, 180 * MIB)


def test_no_cgroups_leave_the_machine(tmp_path):
    memory = available_memory(tmp_path / "nothing", tmp_path / "nothing")
    assert memory.limited_by == "the machine"
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_this_process_takes_memory():
    assert process_memory() > 5 * MIB


def test_the_collector_passes_over_what_is_kept_from_it_until_memory_is_returned() -> None:
    class Node:
        other: "Node"

    one, two = Node(), Node()
    one.other, two.other = two, one
    gone = weakref.ref(one)
    try:
        keep_from_collector()
        del one, two
        gc.collect()
        assert gone() is not None
        return_freed_memory()
        assert gone() is None
    finally:
        gc.unfreeze()
