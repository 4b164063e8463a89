"""The demo model's recipe: package data that says how a dense FFN becomes 32 experts.

Owns the file format. Knows nothing of GGUF, nor of how a recipe is made: that is
``scripts/demo/make_recipe.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RECIPE_PATH = Path(__file__).resolve().parent / "recipe.npz"
RECIPE_VERSION = 1
GAIN_STEPS = 64  # a gain is a byte in units of 1/64


@dataclass(frozen=True, slots=True)
class LayerRecipe:
    """One layer: X experts over E embedding columns, each keeping K of F neurons.

    router_codes (X, E) int8 and router_scales (X,) f16; neurons (X, K) int64, ascending;
    gains (X, K) uint8 in 1/64.
    """

    router_codes: NDArray[np.int8]
    router_scales: NDArray[np.float16]
    neurons: NDArray[np.int64]
    gains: NDArray[np.uint8]

    def router(self) -> NDArray[np.float32]:
        """The router's rows: (X, E)."""
        return self.router_codes.astype(np.float32) * self.router_scales.astype(np.float32)[:, None]

    def column_gains(self) -> NDArray[np.float32]:
        """By what each kept down column is multiplied: (X, K)."""
        return self.gains.astype(np.float32) / np.float32(GAIN_STEPS)

    def coefficients(self, weights: NDArray[np.float32], neurons: int) -> NDArray[np.float32]:
        """By how much each dense neuron counts for each token: (N, X) -> (N, F)."""
        spread = np.zeros((len(self.neurons), neurons), np.float32)
        np.put_along_axis(spread, self.neurons, self.column_gains(), axis=1)
        return np.asarray(weights @ spread, np.float32)


def save_recipe(layers: list[LayerRecipe], neurons: int, path: Path = RECIPE_PATH) -> None:
    """Write a recipe; `neurons` is F, the width of the dense FFN. Sets become bits."""
    kept = np.zeros((len(layers), len(layers[0].neurons), neurons), bool)
    np.put_along_axis(kept, np.stack([layer.neurons for layer in layers]), True, axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        version=np.int32(RECIPE_VERSION),
        router_codes=np.stack([layer.router_codes for layer in layers]),
        router_scales=np.stack([layer.router_scales for layer in layers]),
        kept=np.packbits(kept, axis=-1),
        gains=np.stack([layer.gains for layer in layers]),
    )


def load_recipe(path: Path = RECIPE_PATH) -> tuple[LayerRecipe, ...]:
    """Read the recipe, a `LayerRecipe` a layer."""
    with np.load(path) as data:
        kept = np.unpackbits(data["kept"], axis=-1).astype(bool)
        gains = data["gains"]
        sets = np.nonzero(kept)[2].reshape(gains.shape)
        parts = zip(data["router_codes"], data["router_scales"], sets, gains, strict=True)
        return tuple(LayerRecipe(*part) for part in parts)
