"""Qwen3.5-MoE and Qwen3.6-MoE.

Source: llama.cpp, src/models/qwen35moe.cpp.
"""

from moestream.models.qwen3next import Qwen3Next
from moestream.models.sections import Sectioned


class Qwen35MoE(Sectioned, Qwen3Next):
    """Qwen3-Next with its value heads in another order, and positions of three kinds."""

    head_order = "tiled"
