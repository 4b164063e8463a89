"""What streaming was given, chose and did, in words for a person and in numbers for JSON.

Owns the words. The numbers are the library's.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moestream import ui

if TYPE_CHECKING:
    from moestream.engine.chosen import Choices
    from moestream.engine.engine import Engine
    from moestream.streaming.memory import MemoryPlan
    from moestream.streaming.options import StreamingOptions
    from moestream.streaming.statistics import Counts, ResidencyStats
    from moestream.traces.recording import ProfileRecorder

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StreamingReport:
    """What streaming has done so far, taken while the engine is open."""

    plan: "MemoryPlan"
    choices: "Choices"
    stats: "ResidencyStats"
    num_layers: int
    """Layers with experts: so many turns are one token."""

    @classmethod
    def of(cls, engine: "Engine") -> "StreamingReport | None":
        """Look at an engine; None where experts are mapped."""
        streaming = engine.streaming
        if streaming is None:
            return None
        return cls(streaming.plan, streaming.choices, streaming.stats(), streaming.num_layers)

    @property
    def decoded(self) -> float:
        """Tokens that were run one by one."""
        return self.stats.decode.turns / self.num_layers

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; ``per_token`` is of decoding alone."""
        decode, tokens = self.stats.decode, self.decoded or 1
        names = ("hits", "misses", "late", "demand_bytes", "stall_s")
        return {
            **self.stats.to_dict(),
            "per_token": {name: getattr(decode, name) / tokens for name in names},
            "plan": {**asdict(self.plan), "warning": self.plan.warning},
            "choices": asdict(self.choices),
        }

    def fields(self) -> Fields:
        """Labels and sentences of what was done."""
        stats, tokens = self.stats, self.decoded
        return [
            ("found in memory", _share(stats.decode, "decode") + _prefilled(stats.prefill)),
            (
                "read on demand",
                f"{_bytes(stats.decode.demand_bytes)} in decode"
                f"{_each(stats.decode.demand_bytes, tokens)}, "
                f"{_bytes(stats.prefill.demand_bytes)} in prefill",
            ),
            *([("from the profile", _warmed(stats))] if self.choices.profile else []),
            ("read ahead", self._ahead()),
            (
                "waited for reads",
                f"{stats.decode.stall_s:.2f} s in decode"
                f"{f' ({1e3 * stats.decode.stall_s / tokens:.1f} ms a token)' if tokens else ''}, "
                f"{stats.prefill.stall_s:.2f} s in prefill",
            ),
            ("predictions", _recall(stats)),
            (
                "in memory at the end",
                f"{_bytes(stats.resident_bytes)} of {_bytes(self.plan.total_expert_bytes)} of "
                f"experts; {_bytes(stats.pinned_bytes)} pinned",
            ),
            *([("given back", _given(stats))] if stats.given_back_bytes else []),
            ("major page faults", f"{stats.major_faults}"),
            ("read speed", _speed(stats)),
        ]

    def _ahead(self) -> str:
        if not self.choices.prefetch_layers:
            return "nothing: prefetch is off"
        stats = self.stats
        return (
            f"{_bytes(stats.speculative_bytes)} on prediction: "
            f"{_bytes(stats.useful_bytes)} useful, {_bytes(stats.wasted_bytes)} wasted; "
            f"{stats.cancelled} reads cancelled in time"
        )


def memory_told(engine: "Engine") -> str:
    """Say in a clause how much of a model is in memory."""
    if engine.streaming is None:
        return "all of it in memory" if engine.plan and engine.plan.fits else "mapped"
    plan = engine.streaming.plan
    share = min(plan.experts_bytes / plan.total_expert_bytes, 1) if plan.total_expert_bytes else 1
    if share == 1:
        return "all of the experts in memory"
    return f"{share:.0%} of the experts in memory, the rest read from disk as needed"


def choices_told(engine: "Engine") -> str:
    """Say in a clause how experts are streamed; nothing of a model that has none."""
    if not engine.config.num_experts:
        return ""
    plan, streaming = engine.plan, engine.streaming
    if streaming is None:
        return "experts mapped" + (f": all fit in {_bytes(plan.budget_bytes)}" if plan else "")
    choices, ahead = streaming.choices, streaming.choices.prefetch_layers
    prefetch = f"prefetch {_layers(ahead)} ahead{_mass(choices)}" if ahead else "no prefetch"
    return (
        f"experts streamed within {_bytes(streaming.plan.budget_bytes)}: io {choices.io}, "
        f"pin {choices.pin}, policy {choices.policy}{_by_layer(choices)}{_split(choices)}, "
        + prefetch
        + (f", profile {choices.profile}" if choices.profile else "")
    )


def _mass(choices: "Choices") -> str:
    mass = choices.prefetch_mass
    return "" if mass is None else f" to a mass of {mass:g}"


def _by_layer(choices: "Choices") -> str:
    return "" if choices.layer_budget == "global" else f" by layer ({choices.layer_budget})"


def _split(choices: "Choices") -> str:
    """What is kept of an expert, where anything but 1 was asked for."""
    if choices.asked_split == 1:
        return ""
    shares = sorted(set(choices.split.values())) or [1.0]
    told = f"{shares[0]:g}" + (f" to {shares[-1]:g}" if len(shares) > 1 else "")
    return f", split {told}" + (" (auto)" if choices.asked_split == "auto" else "")


def warnings(engine: "Engine", options: "StreamingOptions | None") -> list[str]:
    """What did not come out as it was asked for."""
    found = [engine.plan.warning] if engine.plan and engine.plan.warning else []
    if options is None:
        return found
    if engine.streaming is None:
        found.append("the model has no experts: there is nothing to stream")
    elif options.pin == "mlock" and engine.streaming.choices.pin != "mlock":
        found.append("memory cannot be locked here (see ulimit -l): no expert is pinned")
    return found


def saved_fields(recorder: "ProfileRecorder") -> dict[str, Any] | None:
    """The profile that a run has saved, for JSON; None if there was nothing to save."""
    saved = recorder.saved
    if saved is None:
        return None
    return {"name": saved.name, "path": str(recorder.path), "tokens": saved.tokens}


def plan_fields(plan: "MemoryPlan") -> Fields:
    """The budget and its parts."""
    share = min(plan.experts_bytes / plan.total_expert_bytes, 1) if plan.total_expert_bytes else 1
    return [
        ("budget", _bytes(plan.budget_bytes)),
        ("dense weights", _bytes(plan.dense_bytes)),
        ("KV cache", _bytes(plan.kv_bytes)),
        ("process and buffers", _bytes(plan.process_bytes)),
        ("left for experts", f"{_bytes(plan.experts_bytes)}, {share:.0%} of all"),
        ("experts of one token", f"{_bytes(plan.floor_bytes)}, the least that is of use"),
        ("all experts", _bytes(plan.total_expert_bytes)),
    ]


def choice_fields(choices: "Choices") -> Fields:
    """How experts are read and kept."""
    io = {
        "madvise": "into the mapped file",
        "pread": "into own memory, through the page cache",
        "direct": "into own memory, past the page cache",
    }[choices.io]
    pin = {
        "mlock": "hot experts locked in the mapped file",
        "copy": "all in own memory, which the system does not evict",
        "none": "nothing is held",
    }[choices.pin]
    ahead = choices.prefetch_layers
    return [
        ("io", f"{choices.io}: {io}"),
        ("pin", f"{choices.pin}: {pin}"),
        ("policy", choices.policy + (": the page cache's" if choices.policy == "none" else "")),
        ("layer budget", choices.layer_budget),
        *([("kept of an expert", _kept(choices))] if choices.asked_split != 1 else []),
        ("prefetch", f"{_layers(ahead)} ahead{_mass(choices)}, while it pays" if ahead else "off"),
        *([("profile", choices.profile)] if choices.profile else []),
    ]


def _kept(choices: "Choices") -> str:
    shares = set(choices.split.values())
    if shares <= {1.0}:
        waits = choices.asked_split == "auto" and choices.pin == "copy"
        return "all of it" + (": any less would wait longer" if waits else "")
    return f"the first {min(shares):.0%}" + (
        f" to {max(shares):.0%}, by layer" if len(shares) > 1 else ""
    )


def _share(counts: "Counts", phase: str) -> str:
    asked = counts.hits + counts.misses
    if not asked:
        return f"nothing was asked for in {phase}"
    cached = f" ({counts.cached_rate:.1%} without prefetch)" if counts.foreseen else ""
    late = f", {counts.late} more were on their way" if counts.late else ""
    return f"{counts.hit_rate:.1%} of {asked} experts asked for in {phase}{cached}{late}"


def _prefilled(counts: "Counts") -> str:
    return f"; {_share(counts, 'prefill')}" if counts.turns else ""


def _recall(stats: "ResidencyStats") -> str:
    routed = sum(record.routed for record in stats.recall.values())
    if not routed:
        return "none were made"
    right = sum(record.predicted for record in stats.recall.values())
    worst = min(stats.recall, key=lambda layer: stats.recall[layer].recall)
    return (
        f"{right / routed:.1%} of the experts were foreseen (recall); "
        f"least in layer {worst}, {stats.recall[worst].recall:.1%}"
    )


def _warmed(stats: "ResidencyStats") -> str:
    warming = stats.warming
    return (
        f"{warming.experts} experts, {_bytes(warming.bytes)}, before the first token; "
        f"{_bytes(warming.read_bytes)} of it read in {warming.elapsed_s:.2f} s"
    )


def _given(stats: "ResidencyStats") -> str:
    return f"{_bytes(stats.given_back_bytes)}, for the system was short of memory"


def _speed(stats: "ResidencyStats") -> str:
    if not stats.read_bytes:
        return "nothing was read"
    return (
        f"{_bytes(stats.bandwidth)}/s while reading; {_bytes(stats.read_bytes)} in "
        f"{stats.read_busy_s:.2f} s"
    )


def _each(n_bytes: int, tokens: float) -> str:
    return f" ({_bytes(n_bytes / tokens)} a token)" if tokens else ""


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


_bytes = ui.format_memory
