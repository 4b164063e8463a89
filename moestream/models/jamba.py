"""AI21's Jamba.

Source: arXiv 2403.19887; llama.cpp, src/models/jamba.cpp.
"""

from moestream.layers.mamba import Mamba, MambaShape
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys


class Jamba(Hybrid):
    """Mamba with attention without positions here and there; experts in some layers."""

    rope_style = "half"
    norm_topk_prob = False
    dense_without_router = True
    recurrence = Mamba

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """What Mamba needs."""
        return {
            "recurrent": MambaShape(
                inner=keys.size("ssm.inner_size"),
                size=keys.size("ssm.state_size"),
                rank=keys.size("ssm.time_step_rank"),
                conv_width=keys.size("ssm.conv_kernel"),
            )
        }

    def turns(self, index: int) -> bool:
        """No layer does."""
        return False
