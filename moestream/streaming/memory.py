"""How much memory this process may use, and what it goes to.

Owns the machine's and the container's limits and their division. Knows nothing of what the
experts' share is used for.

Sources: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst; cgroups(7).
"""

import ctypes
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from moestream.errors import BudgetError
from moestream.streaming.budget import parse_memory

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63
_FILES = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
    ("memory.max", "memory.current"),
)
BUFFERS_BYTES = 48 << 20
"""For what the program makes after it has loaded: activations, a tokenizer. Measured: 46 MiB."""
_ROOM_FOR_OTHERS = 0.15
"""Share of the memory that ``auto`` leaves to the rest of the system."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is: the tightest of the machine and the cgroups above this process."""

    total_bytes: int
    available_bytes: int
    limited_by: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One budget and its parts; ``experts_bytes`` is what the others leave, needed or not.

    ``kv_bytes`` are of the tokens that there is room for from the start, ``context_bytes`` of the
    whole context: as it fills, experts give way.
    """

    budget_bytes: int
    dense_bytes: int
    kv_bytes: int
    process_bytes: int
    experts_bytes: int
    floor_bytes: int
    """Experts of one token: below that, nothing is found again before it is dropped."""
    total_expert_bytes: int
    context_bytes: int = 0

    @property
    def other_bytes(self) -> int:
        """What is always in memory: all but experts, with the context full."""
        context = max(self.context_bytes, self.kv_bytes)
        return self.dense_bytes + context + self.process_bytes

    @property
    def least_bytes(self) -> int:
        """The least budget of use: below it, each token reads all of its experts."""
        return self.other_bytes + min(self.floor_bytes, self.total_expert_bytes)

    @property
    def fits(self) -> bool:
        """Whether all experts have room at once, the context full: then none need be streamed."""
        return self.budget_bytes >= self.other_bytes + self.total_expert_bytes

    @property
    def warning(self) -> str | None:
        """What to tell the user of a budget that is too small, or None; it names one that is not.

        Keys and values are written as a full context has them.
        """
        if self.budget_bytes >= self.least_bytes:
            return None
        context = max(self.context_bytes, self.kv_bytes)
        return (
            f"--budget {_mebibytes(self.budget_bytes)} is too small: this model needs "
            f"{_mebibytes(self.least_bytes)} (dense weights {_number_of(self.dense_bytes)}, "
            f"cache {_number_of(context)}, one token's experts {_number_of(self.floor_bytes)}, "
            f"program {_number_of(self.process_bytes)} MiB). Give --budget "
            f"{_mebibytes(self.least_bytes)}, or a shorter context with -c"
        )


def available_memory(
    process: Path = Path("/proc/self"), cgroups: Path = Path("/sys/fs/cgroup")
) -> Memory:
    """Memory of the machine, or of the container if that is less."""
    machine = psutil.virtual_memory()
    best = Memory(machine.total, machine.available, "the machine")
    for name, limit, used in _limits(process, cgroups):
        total = min(limit, best.total_bytes)
        available = min(max(limit - used, 0), best.available_bytes)
        if total < best.total_bytes or available < best.available_bytes:
            best = Memory(total, available, f"cgroup {name}")
    return best


def plan_memory(
    budget: str,
    *,
    dense_bytes: int,
    kv_bytes: int,
    floor_bytes: int,
    total_expert_bytes: int,
    process_bytes: int,
    context_bytes: int = 0,
    memory: Memory | None = None,
) -> MemoryPlan:
    """Divide ``6G``, ``640M``, ``50%`` (of all memory) or ``auto`` among what needs memory.

    ``auto`` is what is available now, less some room for others. ``process_bytes`` is what the
    program took before it loaded the model.

    Raises:
        BudgetError: no amount of memory, or more than there is.
    """
    memory = memory or available_memory()
    own = process_bytes + BUFFERS_BYTES
    amount = budget_bytes(budget, memory, process_bytes)
    return MemoryPlan(
        budget_bytes=amount,
        dense_bytes=dense_bytes,
        kv_bytes=kv_bytes,
        process_bytes=own,
        experts_bytes=max(amount - dense_bytes - kv_bytes - own, 0),
        floor_bytes=floor_bytes,
        total_expert_bytes=total_expert_bytes,
        context_bytes=context_bytes,
    )


def budget_bytes(budget: str, memory: Memory, process_bytes: int) -> int:
    """What a budget is of the memory that there is; see ``plan_memory``.

    Raises:
        BudgetError: no amount of memory, or more than there is.
    """
    if budget == "auto":
        return int((memory.available_bytes + process_bytes) * (1 - _ROOM_FOR_OTHERS))
    amount = parse_memory(budget, memory.total_bytes)
    require_room(amount, memory)
    return amount


def require_room(budget_bytes: int, memory: Memory) -> None:
    """See that a budget is not more than there is.

    Raises:
        BudgetError: it is.
    """
    if budget_bytes > memory.total_bytes:
        raise BudgetError(
            f"--budget {_mebibytes(budget_bytes)} is more than the "
            f"{_mebibytes(memory.total_bytes)} of {memory.limited_by}. Give less, or auto"
        )


def process_memory() -> int:
    """Bytes of memory that this process takes now."""
    return int(psutil.Process().memory_info().rss)


def return_freed_memory() -> None:
    """Give the system what was freed and the C library keeps (80 MB after one engine, with glibc).

    What an engine may take is less by what the process has when it is opened.
    """
    gc.unfreeze()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_from_collector() -> None:
    """Have Python's collector of garbage pass over what is there, until ``return_freed_memory``.

    For a program that has opened its model: the collector looked through all of it in the middle
    of a token, for 13 ms with 46,000 objects.
    """
    gc.collect()
    gc.freeze()


def memory_groups(process: Path, cgroups: Path) -> Iterator[tuple[Path, Path]]:
    """Every memory cgroup from the process's own up to the root, and that root."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root = cgroups / "memory"
        elif controllers == "":
            root = cgroups
        else:
            continue
        # In a container the path may be the host's; its own group is then the root.
        own = root / path.lstrip("/")
        folder = own if own.is_dir() else root
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            yield group, root


def _limits(process: Path, cgroups: Path) -> Iterator[tuple[str, int, int]]:
    """Name, limit and use of every memory cgroup that has a limit."""
    for group, root in memory_groups(process, cgroups):
        for limit, usage in _FILES:
            found = _number(group / limit)
            if found is not None and found < _UNLIMITED:
                used = (_number(group / usage) or 0) - _reclaimable(group)
                yield "/" + str(group.relative_to(root)).lstrip("."), found, max(used, 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _reclaimable(group: Path) -> int:
    """Bytes of page cache, which is in the count of what is used but is given up when needed."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    pairs = dict(line.split()[:2] for line in lines if " " in line)
    names = [("total_inactive_file", "inactive_file"), ("total_active_file", "active_file")]
    return sum(int(pairs.get(hierarchical, pairs.get(own, 0))) for hierarchical, own in names)


def _mebibytes(n_bytes: int) -> str:
    """As ``--budget`` takes it."""
    return f"{_number_of(n_bytes)}M"


def _number_of(n_bytes: int) -> int:
    return -(-n_bytes // (1 << 20))
