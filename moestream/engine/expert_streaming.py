"""Streams the experts of a loaded model: joins its MoE layers to a residency.

Owns what is opened for streaming and its closing. What is read when is decided in
``streaming``; what is computed, in ``moe``.
"""

import resource
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial

from moestream.engine.backend_slots import BackendSlots
from moestream.engine.chosen import Choices
from moestream.gguf import GGUFFile
from moestream.layers.gates_ahead import GatesAhead, router_copy_bytes
from moestream.layers.moe import MoE
from moestream.profiles import Fingerprint, Profile
from moestream.streaming.build import open_residency
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import MOST_GUESSES, StreamingOptions
from moestream.streaming.prefetch import EachAlone, Foretell, Predict, Prefetcher
from moestream.streaming.pressure import PressureValve
from moestream.streaming.remembered import RememberedRouting
from moestream.streaming.residency import Warmed
from moestream.streaming.statistics import ResidencyStats, Tally
from moestream.streaming.store import ExpertStore


class ExpertStreaming:
    """The experts of ``moes``, by layer, read as they are routed to. ``close`` ends it."""

    def __init__(
        self,
        file: GGUFFile,
        moes: Mapping[int, MoE],
        options: StreamingOptions,
        plan: MemoryPlan,
        profile: Profile | None = None,
        on_warmed: Warmed | None = None,
    ) -> None:
        """Open the experts' files, start the reads' threads and attach the layers.

        With a profile, its hottest experts are read now, and ``on_warmed`` hears how far that is.

        Raises:
            BudgetError, StorageError, ModelFormatError: see ``open_residency``, ``ExpertStore``.
            ProfileError: the profile is of another model.
        """
        if profile is not None:
            profile.require(Fingerprint.of(file), file.path.name)
        self._moes = dict(moes)
        self.plan = plan = self._with_room_for_guesses(plan, options)
        # Dense weights were copied from the mapping; their pages there are not needed again.
        file.forget_pages()
        self._store = ExpertStore(file)
        try:
            self._slots = BackendSlots.of(self._moes)
            self.residency = open_residency(
                self._store,
                options,
                experts_bytes=plan.experts_bytes,
                gives_way=not plan.fits,
                num_experts_per_tok=max(moe.num_experts_per_tok for moe in moes.values()),
                rates=None if profile is None else profile.key_rates(),
                layer_s=partial(_layer_s, next(iter(moes.values()))),
                maker=self._slots,
            )
        except BaseException:
            self._store.close()
            raise
        self.choices = Choices.of(self.residency, options, profile)
        ahead = self.choices.prefetch_layers
        self.prefetcher = self._make_prefetcher(ahead, options.prefetch_mass) if ahead else None
        self.widened = options.prefetch_mass is not None
        """Whether guesses are as wide as their probabilities say, not of as many as are used."""
        self._valve = PressureValve(self.residency.give_back)
        self._kv_bytes = plan.kv_bytes  # the most so far
        self._rows_bytes = 0  # of the passes under way
        self._given_bytes = 0  # for both, beyond the plan
        self._faults = _major_faults()
        try:
            for layer, moe in self._moes.items():
                slots = None if self._slots is None else self._slots.by_layer[layer]
                moe.stream(self.residency, layer, self.prefetcher, slots)
            if profile is not None:
                self.residency.warm(profile.key_rates().tolist(), on_warmed)
        except BaseException:
            self.close()
            raise

    def before_pass(self, kv_bytes: int, rows_bytes: int) -> None:
        """Make sure of the file, and make room: for a grown KV cache, for the rows of this pass.

        And for a system short of memory. ``after_pass`` must come after it.

        Raises:
            ModelFormatError: the file was changed since it was opened.
        """
        self._store.check()
        self._kv_bytes = max(self._kv_bytes, kv_bytes)
        self._rows_bytes += rows_bytes
        if (more := self._wanted_bytes - self._given_bytes) > 0:
            self._given_bytes += self.residency.give_back(more)
        self._valve.check()

    def after_pass(self, rows_bytes: int, *, long: bool) -> None:
        """A pass has ended, or was left, of several chunks if ``long``: experts have its room."""
        if long:
            self.residency.end_long_pass()
        self._rows_bytes -= rows_bytes
        if (less := self._given_bytes - self._wanted_bytes) > 0:
            self._given_bytes -= self.residency.take_back(less)

    @property
    def _wanted_bytes(self) -> int:
        return self._kv_bytes + self._rows_bytes - self.plan.kv_bytes

    @property
    def num_layers(self) -> int:
        """Layers whose experts are streamed."""
        return len(self._store.layers)

    def tally(self) -> Tally:
        """See ``Residency.tally``."""
        return self.residency.tally()

    def stats(self) -> ResidencyStats:
        """What streaming took until now: a copy, which stays as it is."""
        stats = deepcopy(self.residency.stats())
        stats.major_faults = _major_faults() - self._faults
        stats.given_back_bytes = self._valve.given_bytes
        return stats

    def close(self) -> None:
        """Stop reading and let go of files and memory; the layers cannot be run any more."""
        for moe in self._moes.values():
            moe.stop_streaming()
        self._moes = {}
        self._slots = None
        self.residency.close()
        self._store.close()

    def _with_room_for_guesses(self, plan: MemoryPlan, options: StreamingOptions) -> MemoryPlan:
        """Take what guesses go by, at most, from the experts: routers' copies, tokens' routing."""
        if plan.fits or not options.prefetch:
            return plan
        moes = self._moes.values()
        n_bytes = RememberedRouting.n_bytes(moe.num_experts_per_tok for moe in moes)
        n_bytes += sum(router_copy_bytes(moe.hidden_size, moe.num_experts) for moe in moes)
        return replace(plan, experts_bytes=max(plan.experts_bytes - n_bytes, 0))

    def _make_prefetcher(self, ahead: int, mass: float | None) -> Prefetcher:
        foretell: Foretell
        if mass is None:
            foretell = GatesAhead(self._moes)
        else:
            foretell = EachAlone({layer: _wide(moe, mass) for layer, moe in self._moes.items()})
        waits = next(iter(self._moes.values())).backend.work is not None
        prepare = {layer: moe.prepare for layer, moe in self._moes.items()} if waits else None
        layers = sorted(self._moes)
        remembered = None if waits else RememberedRouting(layers)
        return Prefetcher(
            self.residency,
            layers,
            foretell,
            layers_ahead=ahead,
            remembered=remembered,
            prepare=prepare,
            trusting=self.choices.io != "madvise",
        )


def _wide(moe: MoE, mass: float) -> Predict:
    most = min(MOST_GUESSES * moe.num_experts_per_tok, moe.num_experts)
    return lambda x: moe.foresee(x, mass, most)


_TIMED = 5
"""Runs of a layer that are timed, where a choice depends on how fast it is."""


def _layer_s(moe: MoE) -> float:
    """How long a layer's experts take to compute for one token, all in memory.

    To be called before they are streamed; the first run brings them into the page cache.
    """
    x = moe.backend.zeros((1, moe.hidden_size)) + 1  # any vector will do
    times = []
    for _ in range(1 + _TIMED):
        started = time.perf_counter()
        moe(x, 0)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
