"""The mixture-of-experts block: router, routed experts, shared expert.

Here the experts' bytes and the backend's arithmetic meet, and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.ffn import SwiGLU
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class RoutingEvent:
    """What one layer's router decided for one chunk.

    ``x`` (T, E) is the residual stream before ``ffn_norm``: what the next layer's gate sees when
    it predicts. ``expert_ids`` and ``expert_weights`` are (T, k).
    """

    layer: int
    x: Array
    expert_ids: NDArray[np.int32]
    expert_weights: Array


RouteObserver = Callable[[RoutingEvent], None]


class MoE:
    """Norm, router, weighted sum of k experts, and a shared expert where there is one."""

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        width: int,
        num_experts: int,
        num_experts_per_tok: int,
        norm_topk_prob: bool,
        eps: float,
        weights_scale: float = 1.0,
        shared_width: int = 0,
    ) -> None:
        self.backend = weights.backend
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.weights_scale = weights_scale
        self.norm = RMSNorm(weights, "ffn_norm.weight", hidden_size, eps)
        self.router = weights.matrix("ffn_gate_inp.weight", num_experts, hidden_size)
        self.experts = weights.experts(num_experts, width, hidden_size)
        self.shared = SwiGLU(weights, hidden_size, shared_width, "_shexp") if shared_width else None
        has_gate = self.shared is not None and weights.has("ffn_gate_inp_shexp.weight")
        self.shared_gate = (
            weights.row("ffn_gate_inp_shexp.weight", hidden_size) if has_gate else None
        )

    def norm_and_route(self, x: Array) -> tuple[NDArray[np.int32], Array]:
        """Expert ids and weights (T, k) that this layer would choose for ``x`` (T, E).

        On the layer's own input this is the routing itself; on an earlier layer's it predicts it.
        """
        return self._route(self.norm(x))

    def __call__(self, x: Array, layer: int, on_route: RouteObserver | None = None) -> Array:
        """What the block adds to the residual stream ``x``: (T, E) -> (T, E)."""
        ops = self.backend
        normed = self.norm(x)
        expert_ids, expert_weights = self._route(normed)
        if on_route is not None:
            on_route(RoutingEvent(layer, x, expert_ids, expert_weights))
        out = ops.moe_ffn(normed, self.experts, expert_ids, expert_weights)
        if self.shared is None:
            return out
        shared = self.shared(normed)
        if self.shared_gate is not None:
            shared = ops.sigmoid_scale(shared, ops.linear(normed, self.shared_gate))
        return ops.add(out, shared)

    def _route(self, normed: Array) -> tuple[NDArray[np.int32], Array]:
        logits = self.backend.linear(normed, self.router)  # (T, N)
        return self.backend.route(
            logits,
            self.num_experts_per_tok,
            normalise=self.norm_topk_prob,
            scale=self.weights_scale,
        )
