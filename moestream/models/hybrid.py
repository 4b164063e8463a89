"""Models of which some layers attend, and the others are recurrent."""

from abc import abstractmethod

from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.decoder import Decoder


class Hybrid(Decoder):
    """A layer attends where it has key/value heads.

    Stands first among an architecture's bases: the next one says how it attends.
    """

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention, or what stands in its place."""
        if self.config.kv_heads[index]:
            return super().mixer(weights, index)
        return self.recurrent(weights, index)

    @abstractmethod
    def recurrent(self, weights: Weights, index: int) -> Mixer:
        """Build what a layer without key/value heads has."""
