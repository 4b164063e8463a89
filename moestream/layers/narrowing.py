"""Projections into the fewer numbers that a layer's routed experts may work in, and out of them."""

from moestream.backends import Array
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


class Narrowing:
    """From the normed stream to what experts are given, and from their sum back."""

    def __init__(self, weights: Weights, size: int, latent: int, eps: float) -> None:
        """Load both matrices, and the norm of what comes out where the file has one."""
        self.backend = weights.backend
        name = "routed" if weights.has("ffn_routed_down.weight") else "latent"
        self.down = weights.matrix(f"ffn_{name}_down.weight", latent, size)
        self.up = weights.matrix(f"ffn_{name}_up.weight", size, latent)
        norm = "ffn_routed_norm.weight"
        self.norm = RMSNorm(weights, norm, latent, eps) if weights.has(norm) else None

    def into(self, x: Array) -> Array:
        """(T, E) -> (T, latent)."""
        return self.backend.linear(x, self.down)

    def out_of(self, x: Array) -> Array:
        """(T, latent) -> (T, E)."""
        return self.backend.linear(x if self.norm is None else self.norm(x), self.up)
