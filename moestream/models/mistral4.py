"""Mistral's mixtures with latent attention (mistral4).

Source: llama.cpp, src/models/mistral4.cpp, which is deepseek2.cpp.
"""

from moestream.models.deepseek2 import DeepSeek2


class Mistral4(DeepSeek2):
    """DeepSeek-V3's attention and mixture; queries grow with their position."""
