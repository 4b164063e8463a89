"""The dense feed-forward block."""

from dataclasses import dataclass

from moestream.backends import Activation, Array
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class Gate:
    """What a network's inner values are scaled by: see ``Activation``, of which limits are.

    Without an ``own`` matrix, a gate is what it scales: ``relu`` then squares.
    """

    activation: Activation = "silu"
    limit: float = 0.0
    up_limit: float = 0.0
    own: bool = True


class GatedMLP:
    """``down(act(gate(x)) * up(x))`` of resident weights: (T, E) -> (T, E).

    ``suffix`` picks the shared expert's tensors (``_shexp``). ``fused``: the matrix ``up`` has the
    gate's rows first.
    """

    def __init__(
        self,
        weights: Weights,
        hidden_size: int,
        width: int,
        suffix: str = "",
        gate: Gate = Gate(),
        *,
        fused: bool = False,
    ) -> None:
        self.backend = weights.backend
        self.rule = gate
        names = [f"ffn_{part}{suffix}.weight" for part in ("gate", "up")][not gate.own :]
        if fused:
            self.inner = weights.matrices(names[-1], dict.fromkeys(names, width), hidden_size)
        else:
            self.inner = [weights.matrix(name, width, hidden_size) for name in names]
        self.down = weights.matrix(f"ffn_down{suffix}.weight", hidden_size, width)
        self.biases = [
            weights.optional_vector(name.removesuffix(".weight") + ".bias", width) for name in names
        ]
        self.down_bias = weights.optional_vector(f"ffn_down{suffix}.bias", hidden_size)

    def __call__(self, x: Array) -> Array:
        """Run the network on normed input."""
        ops = self.backend
        inner = ops.linears(x, self.inner, self.biases)  # (T, F) each
        rule = self.rule
        scaled = ops.glu(inner[0], inner[-1], rule.activation, rule.limit, rule.up_limit)
        return ops.linear(scaled, self.down, self.down_bias)


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
        gate: Gate = Gate(),
        centred: bool = False,
    ) -> None:
        self.backend = weights.backend
        self.norm = RMSNorm(weights, norm, hidden_size, eps, centred=centred)
        self.network = GatedMLP(weights, hidden_size, width, gate=gate)

    def __call__(self, x: Array) -> Array:
        """(T, E) -> (T, E)."""
        return self.network(self.norm(x))
