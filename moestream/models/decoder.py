"""The pre-norm decoder that all architectures share; an architecture's file says what differs."""

from abc import ABC
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Activation, Array, Backend, RopeStyle, Routing
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile
from moestream.layers.attention import Attention, OutputGate, QKNorm, Temperature
from moestream.layers.batch import Batch
from moestream.layers.ffn import FeedForward, Gate, GatedMLP
from moestream.layers.moe import MoE
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.row_table import RowTable
from moestream.layers.weights import EMBEDDING, OUTPUT, Weights, is_tied
from moestream.models.blocks import Block, Layer, Mixer
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.keys import Keys, Supported
from moestream.models.outline import Outliner, Outlines


class Decoder(ABC):
    """Token ids to hidden states to logits.

    Class attributes are what architectures of this family differ in.
    """

    config_type: ClassVar[type[ModelConfig]] = ModelConfig
    supported: ClassVar[Supported] = SUPPORTED
    rope_style: ClassVar[RopeStyle]
    qk_norm: ClassVar[QKNorm] = "none"
    output_gate: ClassVar[OutputGate] = "none"
    norm_topk_prob: ClassVar[bool]
    shared_gate: ClassVar[bool] = False
    own_expert_width: ClassVar[bool] = False
    """Whether routed experts have a width key of their own, or that of dense networks."""
    activation: ClassVar[Activation] = "silu"
    dense_without_router: ClassVar[bool] = False
    """Whether a layer is dense where the file has no router for it, besides those that lead."""
    dense_without_experts: ClassVar[bool] = False
    """Whether all layers are dense where the metadata counts no experts."""
    mixture: ClassVar[type[MoE]] = MoE
    weigh_input: ClassVar[bool] = False
    attn_norm: ClassVar[str] = "attn_norm.weight"
    ffn_norm: ClassVar[str] = "ffn_norm.weight"
    """Both empty where the input comes normed."""
    output_norm_name: ClassVar[str] = "output_norm.weight"
    predicts_further: ClassVar[bool] = False
    """Whether a layer for further tokens, where a file has one, is as ``next_token`` has it."""

    def __init__(
        self, file: GGUFFile, config: ModelConfig, backend: Backend, context_length: int
    ) -> None:
        """Load the weights, for sessions of up to ``context_length`` tokens."""
        self.config = config
        self.backend = backend
        weights = Weights(file, backend)
        away = Weights(cast(GGUFFile, Outlines(file)), cast(Backend, Outliner()))
        ends = weights if config.has_ends else away
        factors = self.rope_factors(weights, context_length)
        self.rope = Rope(config.rope, factors)
        size = (config.vocab_size, config.hidden_size)
        tied = is_tied(file)
        self.token_embd = ends.matrix(EMBEDDING, *size) if tied else ends.embedding(*size)
        self.tables: list[RowTable] = []
        """What stays in the file, of which a token reads rows."""
        self.layers = [
            self.layer((weights if config.has_layer(i) else away).layer(i), i)
            for i in range(config.num_layers)
        ]
        self.output_norm = self.last_norm(ends)
        self.output = self.token_embd if tied else ends.matrix(OUTPUT, *size)
        self.output_bias = ends.optional_vector("output.bias", config.vocab_size)

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions from a file's metadata.

        Raises:
            ModelFormatError, UnsupportedModelError: see ``ModelConfig.read``.
        """
        keys.require(cls.supported)
        return cls.config_type.read(keys, **cls.read_own(keys))

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Read fields of ``config_type`` that are added to the common ones, or replace them."""
        return {}

    def last_norm(self, weights: Weights) -> Callable[[Array], Array]:
        """What comes between the last layer and the output."""
        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        return RMSNorm(weights, self.output_norm_name, size, eps, centred=self.config.centred)

    def rope_factors(self, weights: Weights, context_length: int) -> NDArray[np.float32] | None:
        """What the frequencies of rotation are divided by, (D/2,), if the file says."""
        return weights.optional_floats("rope_freqs.weight", self.config.rope.dimensions // 2)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer from its tensors."""
        return Layer(self.mixer(weights, index), self.ffn(weights, index))

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Build what comes first in a layer."""
        return self.attention(weights, index)

    def attention(
        self,
        weights: Weights,
        index: int,
        *,
        num_heads: int = 0,
        qk_norm: QKNorm | None = None,
        sinks: bool = False,
        temperature: Temperature | None = None,
        make: Callable[..., Attention] = Attention,
    ) -> Attention:
        """Build a layer's attention by ``make``; what is not said is as in all layers."""
        config, windowed = self.config, self.config.sees_window(index)
        return make(
            weights,
            hidden_size=config.hidden_size,
            num_heads=num_heads or config.num_heads,
            num_kv_heads=config.kv_heads[index],
            head_dim=config.head_dim,
            value_dim=config.value_dim,
            eps=config.rms_norm_eps,
            rope=self.rope_of(index) if self.turns(index) else None,
            rope_style=self.rope_style,
            qk_norm=qk_norm or self.qk_norm,
            scale=config.attention_scale,
            window=config.window if windowed else 0,
            sinks=sinks,
            output_gate=self.output_gate,
            temperature=temperature,
            clamp=config.attention_clamp,
            cap=config.attention_cap,
            centred=config.centred,
            norm=self.attn_norm,
        )

    @cached_property
    def windowed_rope(self) -> Rope:
        """What turns windowed layers."""
        return self.rope if self.config.windowed_rope is None else Rope(self.config.windowed_rope)

    def rope_of(self, index: int) -> Rope:
        """What turns queries and keys of a layer to their positions."""
        return self.windowed_rope if self.config.sees_window(index) else self.rope

    def turns(self, index: int) -> bool:
        """Whether queries and keys of a layer are turned to their positions."""
        return True

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """Build what follows the mixer: experts, or a dense network in a layer without."""
        leads = index < self.config.leading_dense_layers
        routerless = self.dense_without_router and not weights.has("ffn_gate_inp.weight")
        if leads or routerless or (self.dense_without_experts and not self.config.num_experts):
            return self.dense(weights, index)
        return self.moe(weights, index)

    def dense(self, weights: Weights, index: int) -> FeedForward:
        """Build a layer's dense network."""
        config = self.config
        return FeedForward(
            weights,
            hidden_size=config.hidden_size,
            width=config.intermediate_sizes[index],
            eps=config.rms_norm_eps,
            norm=self.ffn_norm,
            gate=self.shared_gating(index),
            centred=config.centred,
        )

    def gating(self, index: int) -> Gate:
        """What scales the inner values of a layer's experts."""
        return Gate(self.activation)

    def shared_gating(self, index: int) -> Gate:
        """What scales those of its shared expert, or of its dense network."""
        return self.gating(index)

    def shared(self, weights: Weights, index: int) -> GatedMLP | None:
        """Build a layer's shared expert, if there is one."""
        if not self.shared_width:
            return None
        size, width = self.config.hidden_size, self.shared_width
        return GatedMLP(weights, size, width, "_shexp", self.shared_gating(index))

    def moe(self, weights: Weights, index: int) -> MoE:
        """Build a layer's experts."""
        config = self.config
        if config.num_experts == 0:
            raise ModelFormatError(
                f"{weights.file.path}: {config.architecture}.expert_count is missing or 0, "
                f"but {config.architecture} is a mixture of experts"
            )
        return self.mixture(
            weights,
            hidden_size=config.hidden_size,
            width=self.expert_width,
            num_experts=config.num_experts,
            routing=self.routing(),
            eps=config.rms_norm_eps,
            norm=self.ffn_norm,
            gate=self.gating(index),
            shared=self.shared(weights, index),
            shared_gate=self.shared_gate,
            centred=config.centred,
            weigh_input=self.weigh_input,
            latent=self.expert_latent,
        )

    def routing(self) -> Routing:
        """How a layer's router chooses."""
        return Routing(self.config.num_experts_per_tok, normalise=self.norm_topk_prob)

    @property
    def expert_latent(self) -> int:
        """The width that routed experts work in, 0 for that of the stream."""
        return 0

    @property
    def expert_width(self) -> int:
        """F of the routed experts; without its key, the dense width shared among the chosen."""
        config = self.config
        dense = config.intermediate_sizes[-1]
        if not self.own_expert_width:
            return dense
        return config.moe_intermediate_size or dense // config.num_experts_per_tok

    @property
    def shared_width(self) -> int:
        """F of the shared expert, 0 for none."""
        return 0

    def enter(self, tokens: Sequence[NDArray[np.int32]], chunks: Sequence[Batch]) -> list[Array]:
        """What enters the first layer, chunk by chunk of a pass."""
        return [self.embed(ids) for ids in tokens]

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """What enters the first layer: (T,) -> (T, E)."""
        embedded, scale = self.backend.embed(self.token_embd, tokens), self.config.embedding_scale
        return embedded if scale == 1 else embedded * scale

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """(T, E) -> (T, V)."""
        ops, scale, cap = self.backend, self.config.logit_scale, self.config.logit_cap
        projected = ops.linear(self.output_norm(hidden), self.output, self.output_bias)
        logits = projected if scale == 1 else projected * scale
        return ops.to_numpy(ops.soften(logits, cap) if cap else logits)
