"""A loaded model: a file, a backend, and the memory that its experts may take.

Decides whether experts are streamed. Knows nothing of tokens: those are a ``Session``'s.
"""

import os
import time
from copy import copy
from typing import Self

from moestream.backends import Backend, KVTypes, open_backend, whole_blocks
from moestream.choices import DraftKind, KVType
from moestream.closing import Closing
from moestream.declare import check
from moestream.engine.drafts import Drafts, possible
from moestream.engine.expert_streaming import ExpertStreaming
from moestream.engine.loading import DEFAULT_CONTEXT, EngineOptions
from moestream.engine.model_plan import plan_model
from moestream.engine.session import Session
from moestream.gguf import GGUFFile
from moestream.layers.cache import Caches, state_bytes
from moestream.layers.moe import MoE
from moestream.models import Decoder, ModelConfig, load_model, read_config, used_names
from moestream.models.part import names_of
from moestream.profiles import Fingerprint, Profile
from moestream.streaming.memory import MemoryPlan, process_memory
from moestream.streaming.options import StreamingOptions
from moestream.streaming.residency import Warmed

_PLANNED_TOKENS = 1024
"""Tokens whose keys and values a budget leaves room for; experts give way to more."""


class Engine(Closing):
    """A model file opened on a backend. A context manager; ``close`` unmaps the file."""

    machines = 1
    """How many share the model."""

    def __init__(
        self,
        file: GGUFFile,
        model: Decoder,
        caches: Caches,
        kv_types: KVTypes,
    ) -> None:
        self.file = file
        self.model = model
        self.backend: Backend = model.backend
        self.caches = caches
        """Makes the caches of sessions, and knows what they take together."""
        self.context_length = caches.capacity
        self.kv_types = kv_types
        self.load_s = 0.0
        self.plan: MemoryPlan | None = None
        """How the budget is divided; None without one."""
        self.streaming: ExpertStreaming | None = None
        """Reads the experts within the budget; None while they are plainly mapped."""
        self.on_warmed: Warmed | None = None
        """Hears how far the reading of a profile's experts is."""
        self.drafts = Drafts("none")
        """What guesses tokens ahead."""
        self._process_bytes = 0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = EngineOptions.backend,
        threads: int | None = EngineOptions.threads,
        context_length: int | None = EngineOptions.context_length,
        cache_type_k: KVType = EngineOptions.cache_type_k,
        cache_type_v: KVType = EngineOptions.cache_type_v,
        draft: DraftKind = EngineOptions.draft,
        budget: str | None = None,
        streaming: StreamingOptions | None = None,
        profile: Profile | None = None,
        on_warmed: Warmed | None = None,
        part: range | None = None,
    ) -> Self:
        """Map a GGUF file and make its dense weights ready.

        Args:
            path: the file, or the first of its shards.
            backend: ``auto``, or one of ``moestream.backends.BACKENDS``.
            threads: of the ``cpu`` backend; by default one a physical core.
            context_length: tokens a session can hold; 0 is the model's own, and so is the
                default, but at most 8192.
            cache_type_k: how keys are stored, ``f16``, ``q8_0`` (blocks of 32 in half the memory)
                or ``f32``.
            cache_type_v: the same of values.
            draft: what guesses tokens ahead in ``Session.generate``, which never changes one:
                ``ngram`` the text so far, ``mtp`` the file's own layer for further tokens, ``auto``
                what of both pays, ``none`` nothing.
            budget: memory for the process, ``6G``, ``640M``, ``50%`` or ``auto``: experts that
                do not all fit into it are streamed. Those that do, and all without a budget, are
                mapped, and the system's page cache decides.
            streaming: how they are streamed; if given, they are even where all fit.
            profile: what a workload used, to be in memory before the first token; needs
                ``streaming`` or a budget that is too small for all experts.
            on_warmed: told how many experts of a profile have been read, and how many there are.
            part: the layers to load, where other machines have the others: see ``machines``.

        Raises:
            ModelFormatError, UnsupportedModelError, UnsupportedQuantError, BudgetError,
            StorageError, ProfileError: see ``errors``.
            ValueError: a ``context_length`` or cache type that cannot be; streaming or a profile
                without a budget.
        """
        if budget is None and (streaming is not None or profile is not None):
            raise ValueError(
                "streaming and profile need a budget, which says how much memory experts may "
                'take; pass budget="auto" or an amount'
            )
        check(
            EngineOptions(
                context_length, cache_type_k=cache_type_k, cache_type_v=cache_type_v, draft=draft
            )
        )
        started = time.perf_counter()
        before = process_memory()
        maths = open_backend(backend, threads=threads)
        draft = possible(draft, maths)
        file = GGUFFile.open(path)
        whole = copy(file)
        try:
            context = context_of(read_config(file), context_length)
            file.restrict(used_names(file, context))
            model = load_model(file, maths, context, part)
            if part is not None:
                file.restrict(names_of(part, file.tensors))
            caches = Caches(
                maths,
                model.config.shapes_here(),
                capacity=context,
                kv_types=(cache_type_k, cache_type_v),
            )
            drafts = Drafts.of(draft, whole, model, caches)
            file.check_intact()
        except BaseException:
            file.close()
            raise
        engine = cls(file, model, caches, (cache_type_k, cache_type_v))
        engine._process_bytes, engine.on_warmed = before, on_warmed
        engine.drafts = drafts
        if budget is not None:
            try:
                engine._use_budget(budget, streaming, profile)
            except BaseException:
                engine.close()
                raise
        engine.load_s = time.perf_counter() - started
        return engine

    @property
    def config(self) -> ModelConfig:
        """The model's dimensions."""
        return self.model.config

    @property
    def rows_per_token(self) -> dict[str, float] | None:
        """Rows of tables, and bytes, that a token read on average; None without such tables."""
        told = [table.counts.per_token() for table in self.model.tables]
        return next(filter(None, told), None)

    def session(self) -> Session:
        """Start an empty token timeline."""
        return Session(
            self.model,
            caches=self.caches,
            streaming=lambda: self.streaming,
            check_file=self.file.check_intact,
            drafts=self.drafts,
        )

    def stream(
        self, plan: MemoryPlan, options: StreamingOptions, profile: Profile | None = None
    ) -> None:
        """Stream the experts from now on; a model without experts is left as it is.

        Raises:
            BudgetError, StorageError, ModelFormatError, ProfileError: see ``ExpertStreaming``.
        """
        here = [pair for pair in enumerate(self.model.layers) if self.config.has_layer(pair[0])]
        moes = {index: layer.ffn for index, layer in here if isinstance(layer.ffn, MoE)}
        if moes:
            self.streaming = ExpertStreaming(
                self.file, moes, options, plan, profile, self.on_warmed
            )

    def _use_budget(
        self, budget: str, options: StreamingOptions | None, profile: Profile | None
    ) -> None:
        self.plan = self.plan_memory(budget)
        if not self.plan.fits and self.drafts.kind == "auto":  # experts want the memory more
            self.drafts = self.drafts.without_layer()
            self.plan = self.plan_memory(budget)
        if options is not None or not self.plan.fits:
            self.stream(self.plan, options or StreamingOptions(), profile)

    def fingerprint(self) -> Fingerprint:
        """What tells the model from others, for profiles.

        Raises:
            ProfileError: it has no experts.
        """
        return Fingerprint.of(self.file)

    def count_elsewhere(self, half_life: float) -> None:
        """Have uses of experts counted that other machines have."""

    def counted_elsewhere(self, profile: Profile) -> Profile:
        """A profile of what was counted here, with what other machines have counted."""
        return profile

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of keys and values (and recurrent states) of so many tokens, in whole blocks."""
        return state_bytes(self.config.shapes_here(), whole_blocks(tokens), self.kv_types)

    def plan_memory(self, budget: str) -> MemoryPlan:
        """Divide a budget, ``6G``, ``640M``, ``50%`` or ``auto``, for this model.

        Raises:
            BudgetError: it is no amount of memory, or more than there is.
        """
        return plan_model(
            budget,
            self.file,
            resident_bytes=self.backend.resident_bytes,
            num_experts_per_tok=self.config.num_experts_per_tok,
            kv_bytes=self._context_bytes(self._planned_tokens()),
            process_bytes=self._process_bytes + self.backend.scratch_bytes + self.drafts.n_bytes,
            context_bytes=self._context_bytes(self.context_length),
        )

    def _context_bytes(self, tokens: int) -> int:
        return self.kv_bytes(tokens) + self.config.choice_bytes * tokens

    def _planned_tokens(self) -> int:
        # A backend's own slots cannot give way later, so they leave room for all at once.
        gives_way = self.backend.expert_slots is None
        return min(self.context_length, _PLANNED_TOKENS) if gives_way else self.context_length

    def close(self) -> None:
        """Unmap the file; the engine's sessions are of no more use."""
        if self.streaming is not None:
            self.streaming.close()
            self.streaming = None
        self.file.close()


def context_of(config: ModelConfig, asked: int | None) -> int:
    """Tokens of context: those asked for, where 0 is the model's own; by default that, or less."""
    if asked is None:
        return min(config.context_length, DEFAULT_CONTEXT)
    return asked or config.context_length
