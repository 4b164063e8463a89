"""Qwen3.5-MoE and Qwen3.6-MoE.

Source: llama.cpp, src/models/qwen35moe.cpp.
"""

from moestream.models.config import ModelConfig
from moestream.models.keys import Keys
from moestream.models.qwen3next import Qwen3Next
from moestream.models.sections import require_sections


class Qwen35MoE(Qwen3Next):
    """Qwen3-Next with its value heads in another order, and positions of three kinds."""

    head_order = "tiled"

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions, and see that every coordinate turns by one of the three."""
        config = super().read_config(keys)
        require_sections(keys, config.rope.dimensions)
        return config
