"""AI21's Jamba.

Source: arXiv 2403.19887; llama.cpp, src/models/jamba.cpp.
"""

from dataclasses import dataclass

from moestream.layers.cache import StateShape
from moestream.layers.mamba import Mamba, MambaShape
from moestream.layers.weights import Weights
from moestream.models.config import ModelConfig
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class JambaConfig(ModelConfig):
    """Layers that do not attend are of shape ``mamba``."""

    mamba: MambaShape

    def recurrent_state(self, layer: int) -> StateShape:
        """The recurrence's."""
        return self.mamba.state()


class Jamba(Hybrid):
    """Mamba with attention without positions here and there; experts in some layers."""

    rope_style = "half"
    norm_topk_prob = False
    dense_without_router = True
    config_type = JambaConfig
    config: JambaConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """What Mamba needs."""
        return {
            "mamba": MambaShape(
                inner=keys.size("ssm.inner_size"),
                size=keys.size("ssm.state_size"),
                rank=keys.size("ssm.time_step_rank"),
                conv_width=keys.size("ssm.conv_kernel"),
            )
        }

    def turns(self, index: int) -> bool:
        """No layer does."""
        return False

    def recurrent(self, weights: Weights, index: int) -> Mamba:
        """Mamba."""
        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        return Mamba(weights, hidden_size=size, shape=self.config.mamba, eps=eps)
