"""EXAONE MoE: K-EXAONE.

llama.cpp turns windowed layers by ``rope.freq_base``, whatever ``rope.freq_base_swa`` says.

Source: llama.cpp, src/models/exaone-moe.cpp.
"""

from moestream.models.sliding_moe import SlidingMoE


class ExaoneMoE(SlidingMoE):
    """Windowed layers turn, those that see everything do not."""

    windowed_base = False

    def turns(self, index: int) -> bool:
        """Windowed layers alone."""
        return self.config.windowed[index]

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the routed experts' width."""
        return self.config.shared_intermediate_size or self.expert_width
