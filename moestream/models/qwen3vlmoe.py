"""The text of Qwen3-VL-MoE.

Source: arXiv 2511.21631; llama.cpp, src/models/qwen3vlmoe.cpp.
"""

from moestream.models.config import ModelConfig
from moestream.models.keys import Keys
from moestream.models.qwen3moe import Qwen3MoE
from moestream.models.sections import require_sections


class Qwen3VLMoE(Qwen3MoE):
    """Qwen3-MoE with positions of three kinds, which in text are one."""

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions, and see that every coordinate turns by one of the three."""
        config = super().read_config(keys)
        require_sections(keys, config.rope.dimensions)
        return config
