"""Replays the routing of a trace through cache policies, offline.

Owns what is counted. A replay answers how often an expert is in memory when its layer asks, and
how many bytes are read; how long that takes is not its business.

The rules are those of the published replay of BigMoeOnEdge: a routed set is
looked up whole, each of its experts once; misses are read; then the policy drops experts, none of
the set's own, until it is within its budget. Prefill warms the cache as one set a layer.
"""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.choices import BOUNDS, FADING, HALF_LIFE, LayerBudget
from moestream.errors import TraceError
from moestream.policies import (
    POLICIES,
    Adaptive,
    Belady,
    Blend,
    Decay,
    Layered,
    Policy,
    PolicyFactory,
    next_uses,
)
from moestream.policies.configurator import Kept, ReadCost, configure_layers
from moestream.policies.shares import split_budget
from moestream.traces.format import Trace
from moestream.traces.guesses import Foresight
from moestream.traces.routed_sets import routed_sets

Phase = Literal["decode", "all"]
NAMES = (*POLICIES, *BOUNDS)

Replayed = Callable[[int], None]
"""Called with how many routed sets more have been replayed."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A policy by name; ``half_life`` (of decay and blend) and ``window`` (of decay) in tokens.

    With a ``split`` below 1, what is resident is that share of each expert alone: more experts have
    room, and the rest of one is read whenever it is used. With ``auto`` the configurator says which
    share, by layer, and with an adaptive layer budget also what each layer has to begin with; it
    is told how often the counted passes use each expert, and how fast the ``ReadCost`` is.

    Source of the split: MoEpic, arXiv 2509.08342.
    """

    name: str
    half_life: float = HALF_LIFE
    window: int | None = None
    split: float | Literal["auto"] = 1.0

    @property
    def label(self) -> str:
        """The name with what it was given: ``lru``, ``decay 32``, ``decay 32 window 256``."""
        half_life = f" {self.half_life:g}" if self.name in FADING else ""
        window = "" if self.window is None else f" window {self.window}"
        split = "" if self.split == 1 else f" split {self.split}"
        return self.name + half_life + window + split


@dataclass(frozen=True, slots=True)
class Replay:
    """What one policy reached at one budget; counts are of the counted passes alone.

    ``resident_bytes`` is what was in memory, on average: above the budget where a routed set is
    bigger than the budget or than its layer's share, for experts in use are never dropped.
    With guesses, ``foreseen`` are misses that had been guessed, and ``wasted`` guesses of experts
    that were neither in memory nor used. Guesses change nothing of what the policy keeps.
    ``splits`` are the shares kept of an expert by layer. ``stall_s`` is how long a
    ``ReadCost`` makes the counted passes wait.
    """

    tokens: int
    lookups: int
    hits: int
    bytes_read: int
    resident_bytes: float
    splits: dict[int, float]
    stall_s: float | None = None
    foreseen: int | None = None
    wasted: int | None = None

    @property
    def split(self) -> float:
        """Share kept of an expert, the mean over layers."""
        return fmean(self.splits.values())

    @property
    def hit_rate(self) -> float:
        """Share of lookups that found the expert in memory, 0 to 1."""
        return self.hits / self.lookups

    @property
    def covered_rate(self) -> float:
        """Share of lookups that found the expert in memory or had been foreseen, 0 to 1."""
        return (self.hits + (self.foreseen or 0)) / self.lookups


class _Guessing:
    """Follows what is resident, set by set, and counts what guesses would have been worth."""

    def __init__(self, foresight: Foresight, counted: NDArray[np.bool_]) -> None:
        self.foreseen = self.wasted = 0
        self._guesses = zip(foresight.by_set, counted.tolist(), strict=True)
        self._resident: set[int] = set()

    def note(self, keys: list[int], missing: list[int], evicted: list[int]) -> None:
        guess, is_counted = next(self._guesses)
        if guess is not None and is_counted:
            self.foreseen += sum(key in guess for key in missing)
            self.wasted += len(guess - self._resident - set(keys))
        self._resident.update(missing)
        self._resident.difference_update(evicted)


class Simulator:
    """Replays one trace, any number of times.

    Prefill warms the cache and is counted only in phase ``all``; of the counted passes the first
    ``warm_up`` are replayed and not counted. (A pass is a token, but in prefill a whole batch.)

    Raises:
        TraceError: nothing is left to count.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        layer_budget: LayerBudget = "global",
        phase: Phase = "decode",
        warm_up: int = 0,
        foresight: Foresight | None = None,
        disk: ReadCost | None = None,
    ) -> None:
        self.header = trace.header
        self.sets = routed_sets(trace)
        self.foresight = foresight
        self.disk = disk
        self.layer_budget = layer_budget
        passes = np.unique(self.sets.tokens[self.sets.decode | (phase == "all")])[warm_up:]
        if not len(passes):
            what = "decode tokens" if phase == "decode" else "tokens"
            raise TraceError(f"{trace.path}: no {what} to count, after {warm_up} of warm-up")
        self.tokens = len(passes)
        self._counted: NDArray[np.bool_] = np.isin(self.sets.tokens, passes)

    def run(
        self, spec: PolicySpec, budget_bytes: int, *, progress: Replayed | None = None
    ) -> Replay:
        """Replay the trace through a policy within a budget."""
        kept = self._configured(budget_bytes) if spec.split == "auto" else None
        if kept is None:
            splits = dict.fromkeys(self.header.expert_bytes, float(spec.split))
        else:
            splits = {layer: found.share for layer, found in kept.items()}
        part_sizes = self._layer_sizes(splits)
        policy = self._policy(spec, part_sizes, budget_bytes, kept)
        access = policy.access
        n_missing, used_bytes = array("q"), array("q")
        guessing = None if self.foresight is None else _Guessing(self.foresight, self._counted)
        for chunk in self.sets.chunks():
            for keys, token in chunk:
                missing, evicted = access(keys, token)
                if guessing is not None:
                    guessing.note(keys, missing, evicted)
                n_missing.append(len(missing))
                used_bytes.append(policy.used_bytes)
            if progress is not None:
                progress(len(chunk))
        misses = np.frombuffer(n_missing, np.int64)[self._counted]
        lengths = self.sets.lengths[self._counted]
        lookups = int(lengths.sum())
        sizes, parts = (
            np.array(layer_sizes)[self.sets.layers[self._counted]]
            for layer_sizes in (self._layer_sizes({}), part_sizes)
        )
        read_bytes = lengths * sizes - (lengths - misses) * parts
        return Replay(
            tokens=self.tokens,
            lookups=lookups,
            hits=lookups - int(misses.sum()),
            bytes_read=int(read_bytes.sum()),
            resident_bytes=float(np.frombuffer(used_bytes, np.int64)[self._counted].mean()),
            splits=splits,
            stall_s=None if self.disk is None else self.disk.stall_s(read_bytes),
            foreseen=None if guessing is None else guessing.foreseen,
            wasted=None if guessing is None else guessing.wasted,
        )

    def _configured(self, budget_bytes: int) -> dict[int, Kept]:
        if self.disk is None:
            raise ValueError("a split of auto is about time: it needs a ReadCost")
        header, n = self.header, self.header.num_experts
        keys = self.sets.keys[np.repeat(self._counted, self.sets.lengths)]
        uses = np.bincount(keys, minlength=header.num_layers * n).reshape(-1, n)
        by_layer = {layer: uses[layer].astype(np.float64) for layer in header.expert_bytes}
        return configure_layers(
            self.layer_budget,
            by_layer,
            header.expert_bytes,
            budget_bytes,
            header.num_experts_per_tok,
            self.disk,
        )

    def _layer_sizes(self, splits: Mapping[int, float]) -> list[int]:
        """Bytes that a resident expert takes, by layer; 0 where a layer has none."""
        sizes = (self.header.expert_bytes.get(n, 0) for n in range(self.header.num_layers))
        return [int(size * splits.get(layer, 1.0)) for layer, size in enumerate(sizes)]

    @cached_property
    def _next_uses(self) -> NDArray[np.int64]:
        return next_uses(self.sets.keys, self.sets.starts)

    def _policy(
        self,
        spec: PolicySpec,
        sizes: list[int],
        budget_bytes: int,
        kept: Mapping[int, Kept] | None,
    ) -> Policy:
        num_experts = self.header.num_experts
        if self.layer_budget == "global":
            keys = [size for size in sizes for _ in range(num_experts)]
            return self._factory(spec, None)(keys, budget_bytes)
        layer_bytes = {n: num_experts * size for n, size in enumerate(sizes) if size}
        shares = split_budget(self.layer_budget, budget_bytes, layer_bytes)
        if kept is not None and self.layer_budget == "adaptive":
            shares = {layer: found.count * sizes[layer] for layer, found in kept.items()}
        parts = [
            self._factory(spec, layer)([size] * num_experts, shares.get(layer, 0))
            for layer, size in enumerate(sizes)
        ]
        if self.layer_budget == "adaptive":
            return Adaptive(parts, least=self.header.num_experts_per_tok)
        return Layered(parts)

    def _factory(self, spec: PolicySpec, layer: int | None) -> PolicyFactory:
        """Return what makes the policy for one layer, or for all."""
        if spec.name in BOUNDS:
            future = self._next_uses
            if layer is not None:
                future = future[self.sets.keys // self.header.num_experts == layer]
            bypass = spec.name == "belady-bypass"
            return partial(Belady, next_uses=array("q", future.tobytes()), bypass=bypass)
        if spec.name == "decay":
            return partial(Decay, half_life=spec.half_life, window=spec.window)
        if spec.name == "blend":
            return partial(Blend, half_life=spec.half_life)
        return POLICIES[spec.name]
