"""dots3.note: sparse attention here and there, between layers that see a window of latents.

Source: llama.cpp, src/models/dots3note.cpp.
"""

import math
from dataclasses import dataclass, replace

from moestream.backends import AttentionShape
from moestream.errors import ModelFormatError
from moestream.layers.cache import StateShape
from moestream.layers.mla import LatentSizes
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.deepseek32 import DeepSeek32, DeepSeek32Config
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots3NoteConfig(DeepSeek32Config):
    """Layers that are not ``indexed`` see a window, and have sizes of their own."""

    windowed_sizes: LatentSizes
    heads: tuple[int, ...]

    def attended_state(self, layer: int) -> StateShape:
        """Latents of the layer's kind."""
        if self.indexed[layer]:
            return DeepSeek32Config.attended_state(self, layer)
        sizes = self.windowed_sizes
        return AttentionShape(1, sizes.latent + sizes.turned, 0)


class Dots3Note(DeepSeek32):
    """Heads gated one by one; what is turned of keys is normed first."""

    gate = "heads"
    config_type = Dots3NoteConfig
    config: Dots3NoteConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the windowed layers' sizes."""
        own = super().read_own(keys)
        heads = keys.per_layer("attention.head_count", keys.num_layers())
        rope = own["rope"]
        assert isinstance(rope, RopeConfig)
        return own | {
            "num_heads": max(heads),
            "heads": heads,
            "window": keys.positive("attention.sliding_window"),
            "windowed": tuple(not sees for sees in cls.read_indexed(keys)),
            "windowed_sizes": _read_windowed_sizes(keys, rope.dimensions),
            "windowed_rope": replace(rope, base=keys.above(1, "rope.freq_base_swa")),
        }

    @classmethod
    def read_indexed(cls, keys: Keys) -> tuple[bool, ...]:
        """Those that see everything."""
        pattern = keys.marked_layers("attention.sliding_window_pattern", keys.num_layers())
        return tuple(not sees for sees in pattern)

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Latent attention of the layer's kind."""
        config, full = self.config, self.config.indexed[index]
        sizes = config.sizes if full else config.windowed_sizes
        return self.latent_attention(
            weights,
            index,
            num_heads=config.heads[index],
            sizes=sizes,
            scale=1 / math.sqrt(sizes.plain + sizes.turned),
            index=config.index if full else None,
            window=0 if full else config.window,
            norm_turned=True,
        )


def _read_windowed_sizes(keys: Keys, turned: int) -> LatentSizes:
    length = keys.positive("attention.key_length_mla_swa")
    if length <= turned:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('attention.key_length_mla_swa')} is {length}, "
            f"expected more than the {turned} numbers that are turned"
        )
    return LatentSizes(
        latent=keys.positive("attention.kv_lora_rank_swa"),
        plain=length - turned,
        turned=turned,
        value=keys.positive("attention.value_length_mla_swa"),
    )
