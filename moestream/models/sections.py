"""Rotary positions of three kinds: of text, of image rows and of image columns, interleaved.

Each turns coordinates of its own. In text all three are the same position, and so is the rotation
that of plain RoPE.
"""

from moestream.errors import UnsupportedModelError
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class Sectioned(Decoder):
    """A model with such positions; stands first among an architecture's bases."""

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions, and see that every coordinate turns by one of the three."""
        config = super().read_config(keys)
        _require_sections(keys, config.rope.dimensions)
        return config


def _require_sections(keys: Keys, dimensions: int) -> None:
    """Raises UnsupportedModelError: some coordinates have no position."""
    sections = keys.numbers("rope.dimension_sections", 4)
    pairs = range(dimensions // 2)
    if any(pair >= 3 * sections[pair % 3] for pair in pairs):
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('rope.dimension_sections')} is {list(sections)}, "
            f"which leaves some of {len(pairs)} pairs of coordinates without a position; "
            "supported are sections that cover them all"
        )
