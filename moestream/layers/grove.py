"""Experts of which each group has a small one in common.

Source: arXiv 2508.07785; modeling_grove_moe.py of inclusionAI/GroveMoE-Inst.
"""

from dataclasses import dataclass, replace

import numpy as np

from moestream.backends import Array, Arrivals, ExpertTensors, Routed
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class GroveShape:
    """Groups of ``size`` experts; a small one is of ``width``, and counts ``scale`` times."""

    size: int
    width: int
    scale: float


class GroveExperts(MoE):
    """A token's small experts are those of its experts' groups, each by the weights of these.

    They stay in memory.
    """

    shape: GroveShape

    def load_small(self, weights: Weights, shape: GroveShape) -> None:
        """Load the groups' experts."""
        self.shape = shape
        tensors = weights.experts(
            self.num_experts // shape.size, shape.width, self.hidden_size, kind="chexps"
        )
        gate, up, down = (
            replace(part, data=np.array(part.data))
            for part in (tensors.gate, tensors.up, tensors.down)
        )
        self._small_tensors = ExpertTensors(gate, up, down)
        self._small = self.backend.experts(self._small_tensors)

    def _run_experts(self, x: Array, routed: Routed, arrivals: Arrivals | None) -> Array:
        ops, (ids, weights) = self.backend, routed
        small = ops.moe_ffn(x, self._small, (ids // np.int32(self.shape.size), weights))
        return ops.add(super()._run_experts(x, routed, arrivals), small * self.shape.scale)
