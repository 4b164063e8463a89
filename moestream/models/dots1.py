"""dots.llm1.

Source: arXiv 2506.05767; llama.cpp, src/models/dots1.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE


class Dots1(DeepSeekMoE):
    """Norms head by head before DeepSeek's mixture."""

    rope_style = "half"
    qk_norm = "head"
