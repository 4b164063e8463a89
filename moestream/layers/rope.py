"""Rotary position embedding: the angles. Turning the vectors by them is the backend's work.

Cosines and sines are made in float64, once a pass for all layers (``Batch.angles``).

Source: arXiv 2104.09864 (RoPE), arXiv 2309.00071 (YaRN).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """What the metadata says of rotary embedding; the defaults are llama.cpp's.

    ``factor`` stretches the context (1 = not at all); ``original_context`` matters to YaRN alone,
    and so do turns over it at which a coordinate is left as it is, and is stretched wholly: beta
    and alpha in the paper, of which few architectures have keys.
    """

    dimensions: int
    base: float = 10000.0
    scaling: Literal["none", "linear", "yarn"] = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    kept_rotations: float = 32.0
    stretched_rotations: float = 1.0


class Rope:
    """Angles for any position, after scaling.

    ``frequency_factors`` (D/2,) divide the frequencies one by one (``rope_freqs.weight`` of
    Llama 3).
    """

    def __init__(self, config: RopeConfig, frequency_factors: Floats | None = None) -> None:
        exponents = np.arange(0, config.dimensions, 2, dtype=np.float64) / config.dimensions
        frequencies = config.base**-exponents
        if frequency_factors is not None:
            frequencies = frequencies / frequency_factors
        self.frequencies, self.magnitude = _scale(frequencies, config)

    def __call__(self, positions: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
        """Cosines and sines of each position: (T,) -> (T, D/2) each."""
        angles = np.outer(positions, self.frequencies)
        cos, sin = np.cos(angles) * self.magnitude, np.sin(angles) * self.magnitude
        return cos.astype(np.float32), sin.astype(np.float32)


def _scale(
    frequencies: NDArray[np.float64], config: RopeConfig
) -> tuple[NDArray[np.float64], float]:
    """Scaled frequencies and the magnitude that cosines and sines are multiplied by."""
    if config.scaling == "none":
        return frequencies, config.attention_factor
    interpolated = frequencies / config.factor
    if config.scaling == "linear":
        return interpolated, config.attention_factor
    keep = _yarn_ramp(config)
    mixed = interpolated * (1 - keep) + frequencies * keep
    return mixed, config.attention_factor * (1 + 0.1 * math.log(max(config.factor, 1)))


def _yarn_ramp(config: RopeConfig) -> NDArray[np.float64]:
    """1 for the fast coordinates that keep their frequency, 0 for the slow that are stretched."""

    def turning(rotations: float) -> float:
        # The coordinate that turns this many times over the original context.
        wavelengths = config.original_context / (rotations * 2 * math.pi)
        return config.dimensions * math.log(wavelengths) / (2 * math.log(config.base))

    low = max(0, math.floor(turning(config.kept_rotations)))
    high = min(config.dimensions - 1, math.ceil(turning(config.stretched_rotations)))
    steps = (np.arange(config.dimensions // 2) - low) / max(0.001, high - low)
    return 1 - np.clip(steps, 0, 1)
