"""What each layer of a model takes: read off its header, for the division among machines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moestream.backends import whole_blocks
from moestream.engine.engine import context_of
from moestream.gguf import GGUFHeader
from moestream.layers.cache import StateShape, state_bytes
from moestream.layers.weights import read_by_row
from moestream.models import read_config, used_names
from moestream.models.part import layer_of
from moestream.ranks.division import LayerCost
from moestream.streaming.store import is_expert_weight

PROGRAM_BYTES = 150 << 20
"""What a process takes beside a model, MLX included. Measured: 146 MiB."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of each layer, and of the embedding and the output."""

    layers: tuple[LayerCost, ...]
    ends: LayerCost
    row_size: int
    """Numbers of a token between layers."""

    @classmethod
    def of(cls, file: GGUFHeader, options: Mapping[str, Any]) -> "Costs":
        """Of a model opened with these options.

        Raises:
            ModelFormatError, UnsupportedModelError: see ``used_names``.
        """
        config = read_config(file)
        context = context_of(config, options.get("context_length"))
        kv_types = options.get("cache_type_k", "f16"), options.get("cache_type_v", "f16")
        tokens = whole_blocks(context)
        dense, experts = [0] * config.num_layers, [0] * config.num_layers
        ends, by_row = 0, read_by_row(file)
        for name in used_names(file, context):
            layer, n_bytes = layer_of(name), file.tensors[name].n_bytes
            if layer is None:
                ends += 0 if name in by_row else n_bytes
            elif is_expert_weight(name):
                experts[layer] += n_bytes
            else:
                dense[layer] += n_bytes
        chosen = config.num_experts_per_tok / max(config.num_experts, 1)

        def cost(index: int, state: StateShape) -> LayerCost:
            return LayerCost(
                dense[index] + state_bytes([state], tokens, kv_types),
                experts[index],
                dense[index] + int(chosen * experts[index]),
                config.may_begin(index),
            )

        states = config.state_shapes()
        layers = tuple(cost(index, states[index]) for index in range(config.num_layers))
        return cls(layers, LayerCost(ends, 0, ends), config.row_size)
