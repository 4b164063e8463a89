"""Models of which some layers attend, and the others are recurrent."""

from typing import Any, ClassVar, Protocol

from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class RecurrentMixer(Mixer, Protocol):
    """A recurrent layer of some shape."""

    def __init__(self, weights: Weights, *, hidden_size: int, shape: Any, eps: float) -> None: ...


class Hybrid(Decoder):
    """A layer attends where it has key/value heads, else it is of the config's ``recurrent`` shape.

    Stands first among an architecture's bases: the next one says how it attends.
    """

    recurrence: ClassVar[type[RecurrentMixer]]
    attends_every: ClassVar[int] = 0
    """So many-th layers attend where the file does not say layer by layer; 0: it says by heads."""

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add which layers attend."""
        heads = {"kv_heads": keys.attending_heads(cls.attends_every)} if cls.attends_every else {}
        return super().read_own(keys) | heads

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention, or what stands in its place."""
        if self.config.kv_heads[index]:
            return super().mixer(weights, index)
        return self.recurrent(weights, index)

    def recurrent(self, weights: Weights, index: int) -> Mixer:
        """Build what a layer without key/value heads has."""
        config = self.config
        size, eps = config.hidden_size, config.rms_norm_eps
        return self.recurrence(weights, hidden_size=size, shape=config.recurrent, eps=eps)
