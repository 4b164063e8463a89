"""Kimi K3.

Source: llama.cpp, src/models/kimi-k3.cpp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend
from moestream.gguf import GGUFFile
from moestream.layers.ffn import Gate
from moestream.layers.kimi_delta import KimiDeltaShape
from moestream.layers.residual_attention import DepthReader
from moestream.layers.weights import Weights
from moestream.models.blocks import BankedLayer, Block
from moestream.models.keys import Keys
from moestream.models.kimi_linear import KimiLinear, read_bounded
from moestream.models.latent_moe import LatentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiK3Config(LatentConfig):
    """Every ``bank_every``-th layer banks the stream; ``inner`` scales in all networks.

    Experts work in ``expert_latent`` numbers, 0 for all.
    """

    recurrent: KimiDeltaShape
    bank_every: int
    inner: Gate
    expert_latent: int

    @property
    def row_size(self) -> int:
        """Of the stream and what is banked."""
        return (1 + -(-self.num_layers // self.bank_every)) * self.hidden_size


class KimiK3(KimiLinear):
    """Kimi Linear with bounded decays, which reads of its stream at earlier layers too."""

    normalise = None
    gate = "values"
    config_type = KimiK3Config
    config: KimiK3Config

    def __init__(
        self, file: GGUFFile, config: KimiK3Config, backend: Backend, context_length: int
    ) -> None:
        """Load what reads of the last rows, too."""
        super().__init__(file, config, backend, context_length)
        self.last_reader = self.reader(Weights(file, backend), "output_res_score.weight")

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what is banked, and what gates are."""
        limit = keys.above(0, "activation.situ_beta")
        return super().read_own(keys) | {
            "bank_every": keys.positive("attn_res.block_size"),
            "inner": Gate("situ", limit, keys.number("activation.situ_linear_beta")),
            "expert_latent": keys.count("expert_latent_length", 0),
        }

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The same, bounded where the file says."""
        return read_bounded(keys, super().read_delta(keys))

    def reader(self, weights: Weights, name: str) -> DepthReader:
        """What reads of all rows of a token."""
        return DepthReader(weights, name, self.config.hidden_size, self.config.rms_norm_eps)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer, and what it reads by."""
        return BankedLayer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            self.reader(weights, "attn_res_score.weight"),
            self.reader(weights, "ffn_res_score.weight"),
            banks=index % self.config.bank_every == 0,
        )

    def gating(self, index: int) -> Gate:
        """The same in all layers."""
        return self.config.inner

    def shared_gating(self, index: int) -> Gate:
        """The same."""
        return self.config.inner

    @property
    def expert_latent(self) -> int:
        """As the file says."""
        return self.config.expert_latent

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """Nothing is banked: (T,) -> (T, 1, E)."""
        return super().embed(tokens)[:, None]

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """(T, N, E) -> (T, V)."""
        return super().logits(self.last_reader(hidden))
