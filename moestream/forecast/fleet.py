"""A model that several machines share, before it is loaded: layers, memory, speed, first token.

Owns what each machine is asked for and how their forecasts come together. Who gets which layers is
decided by the live code, ``ranks.division``; what a machine makes of its layers is foreseen as one
machine's whole model is. All machines are as fast as this one.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from moestream.choices import KVType
from moestream.engine.model_plan import plan_model
from moestream.forecast.demand import read_demand
from moestream.forecast.first_token import FirstToken, pass_tokens_of
from moestream.forecast.outlook import Grounds, Point, point_at
from moestream.forecast.pipeline import Link, Station, prompt_s, rate, row_bytes, token_s
from moestream.forecast.speed import Forecast
from moestream.gguf import GGUFHeader
from moestream.layers.batch import CHUNK_TOKENS
from moestream.models.part import names_of
from moestream.ranks.costs import PROGRAM_BYTES, Costs
from moestream.ranks.division import Machine, divide
from moestream.streaming.memory import BUFFERS_BYTES, Memory, budget_bytes

_BEFORE_BYTES = PROGRAM_BYTES - BUFFERS_BYTES
"""What the program takes before it has loaded a model, MLX included."""


@dataclass(frozen=True, slots=True)
class Member:
    """One machine, its layers, and what it is to do with them."""

    memory_bytes: int
    part: range
    point: Point
    gathers: int
    """Chunks of a prompt that go through it together: many where experts are streamed."""


@dataclass(frozen=True, slots=True)
class FleetPrompt:
    """Seconds to the first token; from ``low_s`` to ``high_s`` it is sure of."""

    tokens: int
    ttft_s: float
    low_s: float
    high_s: float
    in_turn_s: float
    """If no machine began before the one before it had done all."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What will come of a model on machines, and of it on the one of most memory."""

    link: Link
    hop_s: float
    """Of one token's row."""
    members: tuple[Member, ...]
    alone: Point
    tps: float
    """Of one conversation."""
    low_tps: float
    high_tps: float
    many_tps: float
    """Of as many conversations as machines, all together."""
    prompts: tuple[FleetPrompt, ...]

    @property
    def hops_share(self) -> float:
        """The part of a token that is spent in hops."""
        return len(self.members) * self.hop_s * self.tps if len(self.members) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be foreseen: machines by their memory, and the link between them."""

    memory_bytes: tuple[int, ...]
    link: Link
    prompts: tuple[int, ...] = ()
    cache_type_k: KVType = "f16"
    cache_type_v: KVType = "f16"


def foresee_fleet(file: GGUFHeader, grounds: Grounds, wanted: Wanted) -> Fleet:
    """Divide a model's layers among machines, and say what comes of it.

    ``grounds`` are of the whole model on one machine.

    Raises:
        RankError: there are more machines than parts.
        ModelFormatError, UnsupportedModelError: see ``used_names``.
    """
    types = {"cache_type_k": wanted.cache_type_k, "cache_type_v": wanted.cache_type_v}
    costs = Costs.of(file, {"context_length": grounds.context, **types})
    budgets = [budget_bytes("auto", _memory(n), _BEFORE_BYTES) for n in wanted.memory_bytes]
    machines = [Machine(budget - PROGRAM_BYTES, 1.0) for budget in budgets]
    parts = divide(costs.layers, costs.ends, machines)
    members = [
        _member(file, grounds, wanted, n_bytes, part)
        for n_bytes, part in zip(wanted.memory_bytes, parts, strict=True)
    ]
    whole = _member(file, grounds, wanted, max(wanted.memory_bytes), range(len(costs.layers)))
    hop_s = wanted.link.hop_s(row_bytes(costs.row_size))
    return Fleet(
        wanted.link,
        hop_s,
        tuple(members),
        alone=whole.point,
        tps=1 / token_s(_seconds(members, _expected), hop_s),
        low_tps=1 / token_s(_seconds(members, _slow), hop_s),
        high_tps=1 / token_s(_seconds(members, _fast), hop_s),
        many_tps=rate(_seconds(members, _expected), hop_s, len(members)),
        prompts=tuple(
            _prompt(members, wanted.link, costs.row_size, place)
            for place in range(len(wanted.prompts))
        ),
    )


def _memory(n_bytes: int) -> Memory:
    """Of a machine on which this program alone runs."""
    return Memory(n_bytes, max(n_bytes - _BEFORE_BYTES, 0), "--machines")


def _member(
    file: GGUFHeader,
    grounds: Grounds,
    wanted: Wanted,
    memory_bytes: int,
    part: range,
) -> Member:
    """One machine with its layers."""
    own = copy(file)
    own.restrict(names_of(part, file.tensors))
    demand = read_demand(file, wanted.cache_type_k, wanted.cache_type_v, part=part)
    plan = plan_model(
        "auto",
        own,
        num_experts_per_tok=demand.num_experts_per_tok,
        kv_bytes=demand.context_bytes(grounds.context),
        process_bytes=_BEFORE_BYTES,
        memory=_memory(memory_bytes),
    )
    here = replace(grounds, demand=demand)
    gathers = 1 if plan.fits else pass_tokens_of(demand, plan) // CHUNK_TOKENS
    return Member(memory_bytes, part, point_at(plan, here, wanted.prompts), gathers)


def _seconds(members: Sequence[Member], of: Callable[[Forecast], float]) -> list[float]:
    """Each machine's part of a token."""
    return [1 / of(member.point.forecast) for member in members]


def _expected(forecast: Forecast) -> float:
    return forecast.tps


def _slow(forecast: Forecast) -> float:
    return forecast.low_tps


def _fast(forecast: Forecast) -> float:
    return forecast.high_tps


def _prompt(members: Sequence[Member], link: Link, row_size: int, place: int) -> FleetPrompt:
    found = [member.point.prompts[place] for member in members]
    tokens = found[0].tokens
    chunks = -(-tokens // CHUNK_TOKENS)
    wire_s = link.wire_s(row_bytes(row_size, min(tokens, CHUNK_TOKENS)))
    ways = len(found) - 1
    hops_s = ways * (chunks * wire_s + link.way_s()) + (ways > 0) * link.hop_s(0)

    def seconds(of: Callable[[FirstToken], float]) -> float:
        stations = [
            Station(of(each), member.gathers) for member, each in zip(members, found, strict=True)
        ]
        return prompt_s(stations, chunks, wire_s, link.way_s())

    return FleetPrompt(
        tokens,
        ttft_s=seconds(lambda each: each.ttft_s),
        low_s=seconds(lambda each: each.low_s),
        high_s=seconds(lambda each: each.high_s),
        in_turn_s=sum(each.ttft_s for each in found) + hops_s,
    )
