"""GroveMoE.

Source: arXiv 2508.07785; modeling_grove_moe.py of inclusionAI/GroveMoE-Inst. llama.cpp's
src/models/grovemoe.cpp has the keys, but gives groups' experts what the others put out.
"""

from dataclasses import dataclass

from moestream.errors import ModelFormatError
from moestream.layers.grove import GroveExperts, GroveShape
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.config import ModelConfig
from moestream.models.keys import Keys
from moestream.models.qwen3moe import Qwen3MoE


@dataclass(frozen=True, slots=True, kw_only=True)
class GroveMoEConfig(ModelConfig):
    """``groups`` are of experts."""

    groups: GroveShape


class GroveMoE(Qwen3MoE):
    """Qwen3 with a small expert for each group."""

    mixture = GroveExperts
    config_type = GroveMoEConfig
    config: GroveMoEConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the groups."""
        size, experts = keys.positive("experts_per_group"), keys.count("expert_count", 0)
        if experts % size:
            raise ModelFormatError(
                f"{keys.file.path}: {keys.name('experts_per_group')} is {size}, by which {experts} "
                "experts do not divide"
            )
        width = keys.count("expert_chunk_feed_forward_length", 0) or keys.head_dim()
        scale = keys.number("expert_group_scale")
        return super().read_own(keys) | {"groups": GroveShape(size, width, scale)}

    def moe(self, weights: Weights, index: int) -> MoE:
        """Build a layer's experts, and those of groups."""
        made = super().moe(weights, index)
        assert isinstance(made, GroveExperts), "as the class says"
        made.load_small(weights, self.config.groups)
        return made
