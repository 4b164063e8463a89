"""Qwen3-Next: three layers of linear attention for each one that attends to all.

Source: llama.cpp, src/models/qwen3next.cpp; arXiv 2412.06464 (gated delta net).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from moestream.errors import ModelFormatError
from moestream.layers.delta_net import DeltaNet, DeltaShape, HeadOrder
from moestream.layers.weights import Weights
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys, Supported


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3NextConfig(ModelConfig):
    """Layers that do not attend are delta nets."""

    recurrent: DeltaShape


class Qwen3Next(Hybrid):
    """Delta nets and gated attention; router weights that sum to one, and a gated shared expert.

    Layers that predict further tokens are left out.
    """

    supported: ClassVar[Supported] = {
        key: value for key, value in SUPPORTED.items() if key != "nextn_predict_layers"
    }
    rope_style = "half"
    predicts_further = True
    qk_norm = "head"
    output_gate = "joined"
    norm_topk_prob = True
    shared_gate = True
    own_expert_width = True
    ffn_norm = "post_attention_norm.weight"
    attends_every = 4
    head_order: ClassVar[HeadOrder] = "blocked"
    delta_gate: ClassVar[Literal["silu", "sigmoid"]] = "silu"
    config_type: ClassVar[type[ModelConfig]] = Qwen3NextConfig
    config: Qwen3NextConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the delta nets' sizes."""
        return super().read_own(keys) | {"recurrent": _delta_shape(keys)}

    def recurrent(self, weights: Weights, index: int) -> DeltaNet:
        """A delta net."""
        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        return DeltaNet(
            weights,
            hidden_size=size,
            shape=self.config.recurrent,
            order=self.head_order,
            eps=eps,
            norm=self.attn_norm,
            gate=self.delta_gate,
        )

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the dense width."""
        return self.config.shared_intermediate_size or self.config.intermediate_sizes[-1]


def _delta_shape(keys: Keys) -> DeltaShape:
    shape = DeltaShape(
        key_heads=keys.positive("ssm.group_count"),
        value_heads=keys.positive("ssm.time_step_rank"),
        dim=keys.positive("ssm.state_size"),
        conv_width=keys.size("ssm.conv_kernel"),
    )
    keys.require_size("the width of what is convolved", shape.channels)
    if shape.value_heads % shape.key_heads:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('ssm.time_step_rank')} is {shape.value_heads}, expected "
            f"a multiple of {keys.name('ssm.group_count')}, {shape.key_heads}"
        )
    if (inner := keys.count("ssm.inner_size")) != shape.values:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('ssm.inner_size')} is {inner}, expected "
            f"{shape.value_heads} heads of {shape.dim}, {shape.values}"
        )
    return shape
