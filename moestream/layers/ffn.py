"""The dense feed-forward block."""

from moestream.backends import Activation, Array
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


class GatedMLP:
    """``down(act(gate(x)) * up(x))`` of resident weights: (T, E) -> (T, E).

    ``suffix`` picks the shared expert's tensors (``_shexp``).
    """

    def __init__(
        self,
        weights: Weights,
        hidden_size: int,
        width: int,
        suffix: str = "",
        activation: Activation = "silu",
    ) -> None:
        self.backend = weights.backend
        self.activation = activation
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
        return ops.linear(ops.glu(gate, up, self.activation), self.down, self.down_bias)


class FeedForward:
    """Norm and network: what a layer without experts adds to the residual stream."""

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        width: int,
        eps: float,
        norm: str = "ffn_norm.weight",
        activation: Activation = "silu",
    ) -> None:
        self.backend = weights.backend
        self.norm = RMSNorm(weights, norm, hidden_size, eps)
        self.network = GatedMLP(weights, hidden_size, width, activation=activation)

    def __call__(self, x: Array) -> Array:
        """(T, E) -> (T, E)."""
        return self.network(self.norm(x))
