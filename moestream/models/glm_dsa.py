"""GLM-5.

Source: llama.cpp, src/models/glm-dsa.cpp.
"""

from moestream.errors import ModelFormatError
from moestream.models.deepseek32 import DeepSeek32
from moestream.models.keys import Keys

_LONG = 1 << 20
"""Models for contexts of so many tokens, and no others, have layers without an indexer."""


class GLMDSA(DeepSeek32):
    """DeepSeek-V3.2, in newer ones with layers that go by the choice of one before them."""

    index_rope_style = "interleaved"

    @classmethod
    def read_indexed(cls, keys: Keys) -> tuple[bool, ...]:
        """As the file says; where it does not, as GLM-5.2 has them."""
        layers = keys.num_layers()
        long = keys.positive("context_length") >= _LONG
        usual = tuple(i < 2 or i % 4 == 2 or not long for i in range(layers))
        name = "attention.indexer.types"
        listed = keys.name(name) in keys.file.metadata
        indexed = tuple(map(bool, keys.per_layer(name, layers))) if listed else usual
        if not indexed[0]:
            raise ModelFormatError(
                f"{keys.file.path}: {keys.name(name)} gives the first layer no indexer, and there "
                "is none before it"
            )
        return indexed
