"""MiniMax-M2.

Source: llama.cpp, src/models/minimax-m2.cpp.
"""

from moestream.backends import Routing
from moestream.models.config import SUPPORTED
from moestream.models.decoder import Decoder


class MiniMaxM2(Decoder):
    """Norms over all heads together; sigmoid gates with a bias that only selects."""

    supported = SUPPORTED | {"expert_gating_func": ((2,), "2: sigmoid")}
    rope_style = "half"
    qk_norm = "whole"

    def routing(self) -> Routing:
        """Sigmoid gates; the chosen weights sum to one."""
        return Routing(self.config.num_experts_per_tok, normalise=True, gating="sigmoid")
