"""The dense feed-forward block."""

from moestream.backends import Array
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


class SwiGLU:
    """``down(silu(gate(x)) * up(x))`` of resident weights: (T, E) -> (T, E).

    ``suffix`` picks the shared expert's tensors (``_shexp``).
    """

    def __init__(self, weights: Weights, hidden_size: int, width: int, suffix: str = "") -> None:
        self.backend = weights.backend
        self.gate = weights.matrix(f"ffn_gate{suffix}.weight", width, hidden_size)
        self.up = weights.matrix(f"ffn_up{suffix}.weight", width, hidden_size)
        self.down = weights.matrix(f"ffn_down{suffix}.weight", hidden_size, width)
        self.gate_bias = weights.optional_vector(f"ffn_gate{suffix}.bias", width)
        self.up_bias = weights.optional_vector(f"ffn_up{suffix}.bias", width)
        self.down_bias = weights.optional_vector(f"ffn_down{suffix}.bias", hidden_size)

    def __call__(self, x: Array) -> Array:
        """Run the network on normed input."""
        ops = self.backend
        gate, up = ops.linears(  # (T, F) each
            x, [self.gate, self.up], [self.gate_bias, self.up_bias]
        )
        return ops.linear(ops.swiglu(gate, up), self.down, self.down_bias)


class FeedForward:
    """Norm and SwiGLU: what a layer without experts adds to the residual stream."""

    def __init__(self, weights: Weights, *, hidden_size: int, width: int, eps: float) -> None:
        self.norm = RMSNorm(weights, "ffn_norm.weight", hidden_size, eps)
        self.network = SwiGLU(weights, hidden_size, width)

    def __call__(self, x: Array) -> Array:
        """(T, E) -> (T, E)."""
        return self.network(self.norm(x))
