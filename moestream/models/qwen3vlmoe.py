"""The text of Qwen3-VL-MoE.

Source: arXiv 2511.21631; llama.cpp, src/models/qwen3vlmoe.cpp.
"""

from moestream.models.qwen3moe import Qwen3MoE
from moestream.models.sections import Sectioned


class Qwen3VLMoE(Sectioned, Qwen3MoE):
    """Qwen3-MoE with positions of three kinds, which in text are one."""
