"""DeepSeek's kind of mixture behind attention of which some layers see a window alone.

Owns which layers those are, and the rotation and the heads of each kind. Attention's other parts
are told by the architectures.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.backends import RopeStyle
from moestream.errors import ModelFormatError
from moestream.layers.attention import QKNorm
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig, read_rope, read_turned
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingConfig(DeepSeekMoEConfig):
    """``heads`` are each layer's, of queries."""

    heads: tuple[int, ...]


class SlidingMoE(DeepSeekMoE):
    """What architectures differ in is said in class attributes; see ``SlidingConfig``."""

    rope_style: ClassVar[RopeStyle] = "half"
    qk_norm: ClassVar[QKNorm] = "head"
    default_shared = 0
    every: ClassVar[int] = 4
    """Of so many layers one sees everything, where the file does not say layer by layer."""
    first_full: ClassVar[bool] = False
    """Whether it is the first of them, not the last."""
    scale_windowed: ClassVar[bool] = True
    """Whether what stretches the rotation does so in windowed layers too."""
    windowed_base: ClassVar[bool] = True
    """Whether windowed layers may have a base of their own."""
    config_type: ClassVar[type[ModelConfig]] = SlidingConfig
    config: SlidingConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the windows, and the rotation and the heads of each kind of layer."""
        layers = keys.num_layers()
        heads = keys.per_layer("attention.head_count", layers)
        head_dim = keys.count("attention.key_length", 0) or _shared_out(keys, max(heads))
        rope = read_rope(keys, head_dim)
        window = keys.count("attention.sliding_window", 0)
        windowed = keys.windowed_layers(layers, cls.every, first_full=cls.first_full)
        return super().read_own(keys) | {
            "num_heads": max(heads),
            "heads": heads,
            "rope": cls.read_full_rope(rope),
            "window": window,
            "windowed": tuple(window > 0 and sees for sees in windowed),
            "windowed_rope": cls.read_windowed_rope(keys, rope, head_dim),
        }

    @classmethod
    def read_full_rope(cls, rope: RopeConfig) -> RopeConfig:
        """The rotation of layers that see everything, of what the file says of all."""
        return rope

    @classmethod
    def read_windowed_rope(cls, keys: Keys, rope: RopeConfig, head_dim: int) -> RopeConfig:
        """The rotation of windowed layers, of which a file may say what differs."""
        base = keys.above(1, "rope.freq_base_swa", rope.base) if cls.windowed_base else rope.base
        turned = read_turned(keys, "rope.dimension_count_swa", rope.dimensions, head_dim)
        if cls.scale_windowed:
            return replace(rope, base=base, dimensions=turned)
        return RopeConfig(dimensions=turned, base=base)

    def norms(self, weights: Weights) -> QKNorm:
        """How queries and keys are normed."""
        return self.qk_norm

    def sinks(self, weights: Weights) -> bool:
        """Whether a layer's heads have scores of no value."""
        return False

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention over the window, or over everything."""
        config, heads = self.config, self.config.heads[index]
        if config.kv_heads[index] == 0 or heads % config.kv_heads[index]:
            raise ModelFormatError(
                f"{weights.file.path}: layer {index} has {heads} attention heads, which do not "
                f"divide among {config.kv_heads[index]} key/value heads"
            )
        return self.attention(
            weights,
            index,
            num_heads=heads,
            qk_norm=self.norms(weights),
            sinks=self.sinks(weights),
        )


def _shared_out(keys: Keys, heads: int) -> int:
    """The width of a head that has no key of its own."""
    return keys.positive("embedding_length") // max(heads, 1)
