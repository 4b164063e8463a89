"""dots3.note: sparse attention here and there, between layers that see a window of latents.

Source: llama.cpp, src/models/dots3note.cpp.
"""

import math
from dataclasses import dataclass, replace

from moestream.backends import AttentionShape, Backend
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile
from moestream.layers.cache import StateShape
from moestream.layers.mla import LatentAttention, LatentSizes
from moestream.layers.rope import Rope, RopeConfig
from moestream.layers.weights import Weights
from moestream.models.deepseek2 import read_latent
from moestream.models.deepseek32 import DeepSeek32, DeepSeek32Config
from moestream.models.deepseek_moe import read_mixture
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots3NoteConfig(DeepSeek32Config):
    """Layers that are not ``indexed`` see ``window`` positions, and have sizes of their own."""

    window: int
    windowed: LatentSizes
    windowed_rope: RopeConfig
    heads: tuple[int, ...]

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Latents of each kind."""
        windowed = AttentionShape(1, self.windowed.latent + self.windowed.turned, 0)
        return tuple(
            shape if own else windowed
            for shape, own in zip(DeepSeek32Config.state_shapes(self), self.indexed, strict=True)
        )


class Dots3Note(DeepSeek32):
    """Heads gated one by one; what is turned of keys is normed first."""

    config: Dots3NoteConfig

    def __init__(
        self, file: GGUFFile, config: Dots3NoteConfig, backend: Backend, context_length: int
    ) -> None:
        self.windowed_rope = Rope(config.windowed_rope)
        super().__init__(file, config, backend, context_length)

    @classmethod
    def read_config(cls, keys: Keys) -> Dots3NoteConfig:
        """Add the windowed layers' sizes."""
        keys.require(cls.supported)
        latent, layers = read_latent(keys), keys.num_layers()
        rope = latent["rope"]
        assert isinstance(rope, RopeConfig)
        heads = keys.per_layer("attention.head_count", layers)
        length = keys.positive("attention.key_length_mla_swa")
        if length <= rope.dimensions:
            raise ModelFormatError(
                f"{keys.file.path}: {keys.name('attention.key_length_mla_swa')} is {length}, "
                f"expected more than the {rope.dimensions} numbers that are turned"
            )
        return Dots3NoteConfig.read(
            keys,
            num_heads=max(heads),
            heads=heads,
            window=keys.positive("attention.sliding_window"),
            windowed=LatentSizes(
                keys.positive("attention.kv_lora_rank_swa"),
                length - rope.dimensions,
                rope.dimensions,
                keys.positive("attention.value_length_mla_swa"),
            ),
            windowed_rope=replace(rope, base=keys.above(1, "rope.freq_base_swa")),
            index=cls.read_index(keys),
            indexed=cls.read_indexed(keys),
            **latent,
            **read_mixture(keys),
        )

    @classmethod
    def read_indexed(cls, keys: Keys) -> tuple[bool, ...]:
        """Those that see everything."""
        pattern = keys.per_layer("attention.sliding_window_pattern", keys.num_layers())
        return tuple(not sees for sees in pattern)

    def mixer(self, weights: Weights, index: int) -> LatentAttention:
        """Latent attention of the layer's kind."""
        config, full = self.config, self.config.indexed[index]
        turned = config.rope.dimensions
        sizes = LatentSizes(config.latent, config.head_dim - turned, turned, config.value_dim)
        if not full:
            sizes = config.windowed
        return LatentAttention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=config.heads[index],
            sizes=sizes,
            query_rank=config.query_rank,
            eps=config.rms_norm_eps,
            rope=self.rope if full else self.windowed_rope,
            rope_style=self.rope_style,
            scale=1 / math.sqrt(sizes.plain + sizes.turned),
            gate="heads",
            index=config.index if full else None,
            window=0 if full else config.window,
            norm_turned=True,
        )
