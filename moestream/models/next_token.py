"""The layer that predicts one token further (NextN, MTP), where a file carries one.

Owns how it is fed: with what the model came to at a token, normed, and with the token after that.
Everything else of it is a layer of its architecture. Of several, the first is read.

Source: arXiv 2412.19437, 2.2; llama.cpp, ``graph_mtp`` in src/models/glm4-moe.cpp, qwen3next.cpp
and deepseek2.cpp.
"""

from copy import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.gguf import GGUFFile, GGUFHeader
from moestream.layers.batch import Batch
from moestream.layers.cache import StateShape
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import EMBEDDING, Weights
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder


class NextToken:
    """Hidden states and the tokens after them to hidden states of one token later."""

    def __init__(self, file: GGUFFile, model: Decoder) -> None:
        """Load the layer's weights; what it has not of its own is the model's.

        Raises:
            ModelFormatError: a tensor is missing, or does not fit.
        """
        config, index = model.config, model.config.num_layers
        size, backend = config.hidden_size, model.backend
        weights = Weights(file, backend).layer(index)
        further = copy(model)
        further.config = _with_one_more(config)
        self.backend = backend
        self.shape: StateShape = further.config.state_shapes()[-1]
        """What it keeps of each token."""
        self._model = model
        self._enorm, self._hnorm = (
            RMSNorm(weights, f"nextn.{name}.weight", size, config.rms_norm_eps)
            for name in ("enorm", "hnorm")
        )
        self._join = weights.matrix("nextn.eh_proj.weight", size, 2 * size)
        self._layer = further.layer(weights, index)
        table = (config.vocab_size, size)
        self._table, self._head, self._head_norm = model.token_embd, model.output, model.output_norm
        if weights.has("nextn.embed_tokens.weight"):
            self._table = weights.matrix("nextn.embed_tokens.weight", *table)
        if weights.has("nextn.shared_head_head.weight"):
            self._head = weights.matrix("nextn.shared_head_head.weight", *table)
        if weights.has("nextn.shared_head_norm.weight"):
            name = "nextn.shared_head_norm.weight"
            self._head_norm = RMSNorm(weights, name, size, config.rms_norm_eps)

    def begin(self, hidden: Array) -> Array:
        """What it is fed of what left the model's last layer: (T, E) -> (T, E)."""
        return self._model.output_norm(hidden)

    def __call__(self, hidden: Array, tokens: NDArray[np.int32], batch: Batch) -> Array:
        """What it comes to, to be fed again or told: (T, E), and the next tokens (T,) -> (T, E)."""
        ops = self.backend
        embedded = self._enorm(ops.embed(self._table, tokens))
        x = ops.linear(ops.join(embedded, self._hnorm(hidden)), self._join)
        return self._head_norm(self._layer(x, batch, 0))

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Of the token after the next: (T, E) -> (T, V)."""
        return self.backend.to_numpy(self.backend.linear(hidden, self._head))


def further_bytes(file: GGUFHeader, config: ModelConfig) -> int:
    """Bytes of such a layer's weights; 0 where the file has none that is whole."""
    prefix = f"blk.{config.num_layers}."
    if prefix + "nextn.eh_proj.weight" not in file.tensors or EMBEDDING not in file.tensors:
        return 0
    return sum(info.n_bytes for name, info in file.tensors.items() if name.startswith(prefix))


def _with_one_more(config: ModelConfig) -> ModelConfig:
    """The dimensions with a layer more, which attends and has experts."""
    return replace(
        config,
        num_layers=config.num_layers + 1,
        kv_heads=(*config.kv_heads, max(config.kv_heads)),
        intermediate_sizes=(*config.intermediate_sizes, config.intermediate_sizes[-1]),
    )
