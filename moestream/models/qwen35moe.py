"""Qwen3.5-MoE and Qwen3.6-MoE.

Source: llama.cpp, src/models/qwen35moe.cpp.
"""

from moestream.errors import UnsupportedModelError
from moestream.models.config import ModelConfig
from moestream.models.keys import Keys
from moestream.models.qwen3next import Qwen3Next


class Qwen35MoE(Qwen3Next):
    """Qwen3-Next with its value heads in another order, and rotary positions of three kinds.

    Text, image rows and image columns each turn coordinates of their own, interleaved. In text all
    three are the same position, and so is the rotation that of plain RoPE.
    """

    head_order = "tiled"

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions, and see that every coordinate turns by one of the three."""
        config = super().read_config(keys)
        sections = keys.numbers("rope.dimension_sections", 4)
        pairs = range(config.rope.dimensions // 2)
        if any(pair >= 3 * sections[pair % 3] for pair in pairs):
            raise UnsupportedModelError(
                f"{keys.file.path}: {keys.name('rope.dimension_sections')} is {list(sections)}, "
                f"which leaves some of {len(pairs)} pairs of coordinates without a position; "
                "supported are sections that cover them all"
            )
        return config
