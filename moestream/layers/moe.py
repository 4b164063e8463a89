"""The mixture-of-experts block: router, routed experts, shared expert.

Here the experts' bytes and the backend's arithmetic meet, and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moestream.backends import (
    Array,
    Arrivals,
    ExpertSlots,
    ExpertTensors,
    Routed,
    RouterGate,
    Routing,
    StreamedExperts,
)
from moestream.layers.ffn import Gate, GatedMLP
from moestream.layers.narrowing import Narrowing
from moestream.layers.norm import RMSNorm, norm_before
from moestream.layers.weights import Weights
from moestream.streaming.prefetch import Prefetcher
from moestream.streaming.residency import Residency
from moestream.streaming.slots import bytes_at


class RoutingEvent(NamedTuple):
    """What one layer's router decided for one chunk.

    ``x`` (T, E) is the residual stream before the router's norm: what the next layer's gate sees
    when it predicts. ``expert_ids`` and ``expert_weights`` are (T, k). ``missing`` are those that
    were not in memory when the layer asked; None where experts are mapped and nobody looks.
    """

    layer: int
    x: Array
    expert_ids: NDArray[np.int32]
    expert_weights: Array
    missing: Sequence[int] | None = None

    @property
    def resident(self) -> NDArray[np.bool_] | None:
        """Whether each was in memory when the layer asked: (T, k)."""
        if self.missing is None:
            return None
        found: NDArray[np.bool_] = ~np.isin(self.expert_ids, self.missing)
        return found


RouteObserver = Callable[[RoutingEvent], None]


@dataclass(frozen=True, slots=True)
class ByLayer:
    """An observer that may hear of all rows of a long pass before the next layer: it counts."""

    observe: RouteObserver

    def __call__(self, event: RoutingEvent) -> None:
        """Hand it on."""
        self.observe(event)


class MoE:
    """Norm, router, weighted sum of k experts, and a shared expert where there is one.

    ``norm`` is its weight's name, empty where the input comes normed; ``router_norm`` is of what
    the router sees: an architecture may give it one of its own.
    ``latent`` is the width that experts work in, between projections of their own, 0 for E.
    ``weigh_input``: the one chosen expert's weight multiplies what it is given, not what it gives.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        width: int,
        num_experts: int,
        routing: Routing,
        eps: float,
        norm: str = "ffn_norm.weight",
        gate: Gate = Gate(),  # noqa: B008
        shared: GatedMLP | None = None,
        shared_gate: bool = False,
        centred: bool = False,
        latent: int = 0,
        weigh_input: bool = False,
    ) -> None:
        self.backend = weights.backend
        self.hidden_size = hidden_size
        self.num_experts = num_experts
        self.num_experts_per_tok = routing.k
        self.norm = norm_before(weights, norm, hidden_size, eps, centred=centred)
        self.router_norm: Callable[[Array], Array] = self.norm
        self.weigh_input = weigh_input
        self.narrowing = Narrowing(weights, hidden_size, latent, eps) if latent else None
        self.router = weights.matrix("ffn_gate_inp.weight", num_experts, hidden_size)
        self.router_bias = weights.optional_vector("ffn_gate_inp.bias", num_experts)
        bias = "exp_probs_b" if weights.has("exp_probs_b") else "exp_probs_b.bias"
        self.routing = replace(
            routing,
            selection_bias=weights.optional_floats(bias, num_experts),
            expert_scales=weights.optional_floats("ffn_down_exps.scale", num_experts),
        )
        self._tensors = weights.experts(
            num_experts,
            width,
            latent or hidden_size,
            gate.activation,
            limits=(gate.limit, gate.up_limit),
            own_gate=gate.own,
        )
        self._experts = self.backend.experts(self._tensors)
        self._residency: Residency | None = None
        self._prefetcher: Prefetcher | None = None
        self._prepared: tuple[Array, Array] | None = None
        self.shared = shared
        self.shared_gate = (
            weights.row("ffn_gate_inp_shexp.weight", hidden_size) if shared_gate else None
        )

    def norm_and_route(self, x: Array) -> Routed:
        """Expert ids and weights (T, k) that this layer would choose for ``x`` (T, E).

        On the layer's own input this is the routing itself; on an earlier layer's it predicts it.
        """
        return self.backend.route(self._logits(x), self.routing)

    def gate(self) -> RouterGate | None:
        """What it chooses by, in numbers; None where that takes more than a plain norm."""
        norm = self.router_norm
        if not isinstance(norm, RMSNorm) or norm.centred or norm.bias is not None:
            return None
        return RouterGate(norm.weight, norm.eps, self.router, self.router_bias, self.routing)

    def prepare(self, x: Array) -> None:
        """Have the router's logits for ``x`` computed by the next wait, for a guess soon after.

        A backend with a device of its own then waits once for both; one on the CPU need not ask.
        """
        self._prepared = (x, self._logits(x))
        self.backend.begin(self._prepared[1])

    def likeliest(self, x: Array, most: int) -> Routed:
        """Ids and probabilities (T, ``most``) of those that this layer's router finds likeliest.

        Of all groups: a guess may be wider than the groups that are used have experts.
        """
        one_group = replace(self.routing, groups=1, groups_used=1)
        rule = replace(one_group, k=most, normalise=False, expert_scales=None)
        return self.backend.route(self._logits(x), rule)

    def foresee(self, x: Array, mass: float, most: int) -> NDArray[np.int32]:
        """Guess what this layer will choose from an earlier layer's ``x`` (T, E): ids (T, n).

        The likeliest experts whose probabilities reach ``mass`` together: k of them where the
        router is sure, up to ``most`` where it is not. A row that needs fewer than others has its
        likeliest again.

        Source: Fate, arXiv 2502.12224, which widens its guesses so; by mass is ours.
        """
        ids, probabilities = self.likeliest(x, most)
        reached = np.cumsum(self.backend.to_numpy(probabilities), axis=1, dtype=np.float64)
        wanted = np.ones(ids.shape, np.bool_)
        wanted[:, self.num_experts_per_tok :] = reached[:, self.num_experts_per_tok - 1 : -1] < mass
        chosen: NDArray[np.int32] = np.where(wanted, ids, ids[:, :1])
        return chosen[:, : int(wanted.sum(axis=1).max())]

    def __call__(
        self,
        x: Array,
        layer: int,
        on_route: RouteObserver | None = None,
        *,
        more: bool = False,
        routed_by: Array | None = None,
        chosen: NDArray[np.int32] | None = None,
    ) -> Array:
        """What the block adds to the residual stream ``x``: (T, E) -> (T, E).

        With ``more``, other rows of the same pass come to this layer next. ``routed_by`` (T, E) is
        what the router sees in place of ``x``: the stream at another point. ``chosen`` (T, k) are
        experts that something else than the router chose.
        """
        ops = self.backend
        seen = x if routed_by is None else routed_by
        if self._prefetcher is not None:
            self._prefetcher.before_route(layer, seen)
        normed = self.norm(x)
        same = routed_by is None and self.router_norm is self.norm
        logits = self._score(normed if same else self.router_norm(seen))
        if chosen is None:
            routed = ops.route(logits, self.routing)
        else:
            routed = ops.weigh(logits, chosen, self.routing)
        expert_ids, expert_weights = routed
        arrivals = missing = None
        if self._residency is not None:
            arrivals = self._residency.fetch(layer, expert_ids, more=more)
            if self._prefetcher is not None:
                self._prefetcher.after_fetch(layer, seen, expert_ids)
            if on_route is not None:
                missing = self._residency.missing(layer)
        if on_route is not None:  # after the reads are begun, which go on meanwhile
            on_route(RoutingEvent(layer, seen, expert_ids, expert_weights, missing))
        # Before the routed experts: those that are missing are being read meanwhile.
        beside = self.run_beside(x, normed)
        if beside is not None and arrivals is not None:
            ops.begin(beside)
        return self.join(self._run_experts(normed, routed, arrivals), beside)

    def end_rows(self) -> None:
        """No more rows come to this layer, of a pass that came in several chunks."""
        if self._residency is not None:
            self._residency.let_go()

    def run_beside(self, x: Array, normed: Array) -> Array | None:
        """What every token passes through beside its experts: here the shared expert, if any."""
        return None if self.shared is None else self._run_shared(self.shared, normed)

    def join(self, routed: Array, beside: Array | None) -> Array:
        """The block's output, from the experts' sum and what ran beside them."""
        return routed if beside is None else self.backend.add(routed, beside)

    @property
    def tensors(self) -> ExpertTensors:
        """The routed experts in the file."""
        return self._tensors

    def stream(
        self,
        residency: Residency,
        layer: int,
        prefetcher: Prefetcher | None,
        slots: ExpertSlots | None = None,
    ) -> None:
        """From now on, ask ``residency`` for the experts of this layer, in the backend's slots."""
        n = residency.num_experts
        addresses = residency.addresses[layer * n : (layer + 1) * n]
        self._experts = self.backend.experts(
            StreamedExperts(self._tensors, addresses, bytes_at, slots)
        )
        self._residency, self._prefetcher = residency, prefetcher

    def stop_streaming(self) -> None:
        """Let go of what ``stream`` was given, and go back to the mapped file."""
        self._experts = self.backend.experts(self._tensors)
        self._residency = self._prefetcher = self._prepared = None

    def _run_experts(self, x: Array, routed: Routed, arrivals: Arrivals | None) -> Array:
        """Weighted sum of the chosen experts' outputs: (T, E)."""
        ops, (ids, weights) = self.backend, routed
        if self.weigh_input:
            x, routed = x * weights, (ids, weights * 0 + 1)
        around = self.narrowing
        if around is None:
            return ops.moe_ffn(x, self._experts, routed, arrivals)
        return around.out_of(ops.moe_ffn(around.into(x), self._experts, routed, arrivals))

    def _run_shared(self, shared: GatedMLP, normed: Array) -> Array:
        out = shared(normed)
        if self.shared_gate is None:
            return out
        return self.backend.sigmoid_scale(out, self.backend.linear(normed, self.shared_gate))

    def _logits(self, x: Array) -> Array:
        """The router's, (T, N), of a residual stream."""
        if self._prepared is not None and self._prepared[0] is x:
            return self._prepared[1]
        return self._score(self.router_norm(x))

    def _score(self, normed: Array) -> Array:
        return self.backend.linear(normed, self.router, self.router_bias)  # (T, N)
