"""The pre-norm decoder that all architectures share; an architecture's file says what differs."""

from abc import ABC
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend, RopeStyle
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile
from moestream.layers.attention import Attention, QKNorm
from moestream.layers.ffn import FeedForward
from moestream.layers.kv_cache import KVCache
from moestream.layers.moe import MoE, RouteObserver
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
from moestream.models.config import ModelConfig


class Layer:
    """One transformer layer: attention, then experts or a dense network."""

    def __init__(self, attention: Attention, ffn: FeedForward | MoE) -> None:
        self.attention = attention
        self.ffn = ffn


class Decoder(ABC):
    """Token ids to hidden states to logits.

    Class attributes are what architectures of this family differ in.
    """

    rope_style: ClassVar[RopeStyle]
    qk_norm: ClassVar[QKNorm] = "none"
    norm_topk_prob: ClassVar[bool]
    shared_gate: ClassVar[bool] = False
    own_expert_width: ClassVar[bool] = False
    """Whether routed experts have a width key of their own, or that of dense networks."""

    def __init__(self, file: GGUFFile, config: ModelConfig, backend: Backend) -> None:
        self.config = config
        self.backend = backend
        weights = Weights(file, backend)
        size = (config.vocab_size, config.hidden_size)
        self.token_embd = weights.matrix("token_embd.weight", *size)
        self.layers = [self.layer(weights.layer(i)) for i in range(config.num_layers)]
        self.output_norm = RMSNorm(
            weights, "output_norm.weight", config.hidden_size, config.rms_norm_eps
        )
        tied = not weights.has("output.weight")
        self.output = self.token_embd if tied else weights.matrix("output.weight", *size)
        half = config.rope.dimensions // 2
        factors = weights.optional_vector("rope_freqs.weight", half)
        self.rope = Rope(config.rope, None if factors is None else backend.to_numpy(factors))

    def layer(self, weights: Weights) -> Layer:
        """Build one layer from its tensors."""
        return Layer(self.attention(weights), self.ffn(weights))

    def attention(self, weights: Weights) -> Attention:
        """Build a layer's attention."""
        config = self.config
        return Attention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            eps=config.rms_norm_eps,
            rope_style=self.rope_style,
            qk_norm=self.qk_norm,
        )

    def ffn(self, weights: Weights) -> FeedForward | MoE:
        """Build what follows a layer's attention."""
        return self.moe(weights)

    def moe(self, weights: Weights) -> MoE:
        """Build a layer's experts."""
        config = self.config
        if config.num_experts == 0:
            raise ModelFormatError(
                f"{weights.file.path}: {config.architecture}.expert_count is missing or 0, "
                f"but {config.architecture} is a mixture of experts"
            )
        return MoE(
            weights,
            hidden_size=config.hidden_size,
            width=self.expert_width,
            num_experts=config.num_experts,
            num_experts_per_tok=config.num_experts_per_tok,
            norm_topk_prob=self.norm_topk_prob,
            eps=config.rms_norm_eps,
            shared_width=self.shared_width,
            shared_gate=self.shared_gate,
        )

    @property
    def expert_width(self) -> int:
        """F of the routed experts; without its key, the dense width shared among the chosen."""
        config = self.config
        if not self.own_expert_width:
            return config.intermediate_size
        return config.moe_intermediate_size or (
            config.intermediate_size // config.num_experts_per_tok
        )

    @property
    def shared_width(self) -> int:
        """F of the shared expert, 0 for none."""
        return 0

    def hidden(
        self, tokens: NDArray[np.int32], cache: KVCache, on_route: RouteObserver | None = None
    ) -> Array:
        """Run a chunk through all layers and extend the cache: (T,) -> (T, E)."""
        cache.reserve(len(tokens))
        start = cache.length
        angles = self.rope(start, len(tokens))
        x = self.backend.embed(self.token_embd, tokens)
        for index, layer in enumerate(self.layers):
            x = self.backend.add(x, layer.attention(x, cache.layer(index), start, angles))
            if isinstance(layer.ffn, MoE):
                x = self.backend.add(x, layer.ffn(x, index, on_route))
            else:
                x = self.backend.add(x, layer.ffn(x))
        cache.length += len(tokens)
        return x

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """(T, E) -> (T, V)."""
        return self.backend.to_numpy(self.backend.linear(self.output_norm(hidden), self.output))
