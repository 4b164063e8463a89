"""The cache policies, written a second time and as plainly as possible: an oracle for the tests.

Each keeps the whole history and decides by looking at all of it. ``SLOW[name]`` returns, for every
routed set, what was missing and what was dropped.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

History = Sequence[tuple[Sequence[int], int]]
"""Routed sets with their tokens."""
Decisions = list[tuple[list[int], set[int]]]
Rank = Callable[[History, int, int], object]
"""Sorts first what is to be dropped: of the sets 0 to i, in the order of use, for a key."""


def slow(
    sets: History, sizes: Sequence[int], budget: int, rank: Rank, *, bypass: bool = False
) -> Decisions:
    """Drop by rank until the budget is met."""
    resident: set[int] = set()
    decisions: Decisions = []
    for i, (keys, _) in enumerate(sets):
        missing = [key for key in keys if key not in resident]
        resident |= set(keys)
        evicted: set[int] = set()
        candidates = resident if bypass else resident - set(keys)
        for key in sorted(candidates, key=lambda key: (rank(sets, i, key), key)):
            if sum(sizes[k] for k in resident) <= budget:
                break
            resident = resident - {key}
            evicted.add(key)
        decisions.append((missing, evicted))
    return decisions


def uses(sets: History, i: int, key: int) -> list[tuple[int, int, int]]:
    """Each use of a key so far: number of the set, place in it, token."""
    return [
        (n, list(keys).index(key), token)
        for n, (keys, token) in enumerate(sets[: i + 1])
        if key in keys
    ]


def lru(sets: History, i: int, key: int) -> object:
    return uses(sets, i, key)[-1][:2]


def lfu(sets: History, i: int, key: int) -> object:
    past = uses(sets, i, key)
    return len(past), past[-1][:2]


def decay(half_life: float, window: int | None = None) -> Rank:
    def rank(sets: History, i: int, key: int) -> object:
        now = sets[i][1]
        ages = [now - token for _, _, token in uses(sets, i, key)]
        return sum(_half_to(age, half_life) for age in ages if window is None or age < window)

    return rank


def _half_to(age: int, half_life: float) -> Fraction:
    # Exact for the half-lives of the tests, so that ties are ties.
    assert age % half_life == 0
    return Fraction(1, 2 ** int(age // half_life))


def lcp(sets: History, i: int, key: int) -> object:
    past = uses(sets, i, key)
    nu = sets[i][1] - past[-1][2]
    assert nu % 64 == 0
    return len(past) * Fraction(1, 4) ** Fraction(nu, 128)


def belady(sets: History, i: int, key: int) -> object:
    return -next((n for n in range(i + 1, len(sets)) if key in sets[n][0]), 10**9)


def slow_arc(sets: History, size: int, budget: int) -> Decisions:
    """The published ARC on lists of keys of one size; sets are looked up whole."""
    t1: list[int] = []
    t2: list[int] = []
    b1: list[int] = []
    b2: list[int] = []
    capacity, target = Fraction(budget, size), Fraction(0)
    decisions: Decisions = []
    for keys, _ in sets:
        missing, evicted = [], set()
        for key in keys:
            if key in t1 or key in t2:
                (t1 if key in t1 else t2).remove(key)
                t2.append(key)
                continue
            missing.append(key)
            if key in b1:
                target = min(capacity, target + max(Fraction(1), Fraction(len(b2), len(b1))))
                b1.remove(key)
                t2.append(key)
            elif key in b2:
                target = max(Fraction(0), target - max(Fraction(1), Fraction(len(b1), len(b2))))
                b2.remove(key)
                t2.append(key)
            else:
                t1.append(key)
        while len(t1) + len(t2) > capacity:
            order = [(t1, b1), (t2, b2)] if len(t1) > target else [(t2, b2), (t1, b1)]
            found = [(m, g, k) for m, g in order for k in m if k not in keys][:1]
            if not found:
                break
            members, ghost, key = found[0]
            members.remove(key)
            ghost.append(key)
            evicted.add(key)
        while b1 and len(t1) + len(b1) > capacity:
            b1.pop(0)
        while b2 and len(t1) + len(t2) + len(b1) + len(b2) > 2 * capacity:
            b2.pop(0)
        decisions.append((missing, evicted))
    return decisions


def slow_lfru(sets: History, sizes: Sequence[int], budget: int) -> Decisions:
    """Two lists; of the unprivileged one the fewest uses go, of those the first that came."""
    privileged: list[int] = []
    others: list[int] = []
    count: dict[int, int] = {}
    decisions: Decisions = []

    def total(keys: list[int]) -> int:
        return sum(sizes[key] for key in keys)

    for keys, _ in sets:
        missing, evicted = [], set()
        for key in keys:
            count[key] = count.get(key, 0) + 1
            if key in privileged:
                privileged.remove(key)
                privileged.append(key)
            elif key in others:
                others.remove(key)
                privileged.append(key)
                while total(privileged) > budget // 2:
                    others.append(privileged.pop(0))
            else:
                missing.append(key)
                others.append(key)
        while total(privileged) + total(others) > budget:
            candidates = [key for key in others if key not in keys]
            if candidates:
                key = min(candidates, key=lambda key: count[key])
                others.remove(key)
                del count[key]
                evicted.add(key)
            elif privileged:
                others.append(privileged.pop(0))
            else:
                break
        decisions.append((missing, evicted))
    return decisions


def slow_blend(
    sets: History, sizes: Sequence[int], budget: int, n_layers: int, bonus: Fraction
) -> Decisions:
    """Decay of half-life 1, and a bonus for what its layer used when it last ran."""

    def rank(sets: History, i: int, key: int) -> object:
        past = uses(sets, i, key)
        now = sets[i][1]
        # Set n is of layer n % n_layers; the key's layer has run at or after set ``latest``.
        latest = past[-1][0]
        fresh = latest + n_layers > i
        weight = Fraction(1, 2 ** (now - past[-1][2])) * bonus if fresh else 0
        return sum(Fraction(1, 2 ** (now - token)) for _, _, token in past) + weight

    return slow(sets, sizes, budget, rank)
