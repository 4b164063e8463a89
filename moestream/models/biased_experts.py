"""What DeepSeek-V3 brought, and GLM-4.5 and Ling 2.0 took up: how experts are chosen, and shared.

Experts may be gated one by one by a sigmoid, chosen in groups with a bias that has no part in their
weights, and stand beside shared experts, after leading layers without any.

Source: arXiv 2412.19437 (DeepSeek-V3), section 2.1.2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moestream.backends import Routing
from moestream.backends.base import Gating
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys, Supported

_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasedExpertsConfig(ModelConfig):
    """A model whose metadata says how its experts are chosen."""

    routing: Routing


def biased_experts(keys: Keys, gating: int = 2) -> dict[str, Any]:
    """What ``BiasedExpertsConfig.read`` is to be told; ``gating`` is that of files that say none.

    Layers that predict further tokens come last and are left out.
    """
    extra = keys.count("nextn_predict_layers", 0)
    layers = keys.positive("block_count") - extra
    if layers < 1:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('nextn_predict_layers')} is {extra}, which leaves "
            f"none of {keys.name('block_count')}'s layers"
        )
    width = keys.positive("expert_feed_forward_length")
    shared = keys.count("expert_shared_feed_forward_length", 0) or width
    return {
        "own_layers": layers,
        "leading_dense_layers": keys.count("leading_dense_block_count", 0),
        "shared_intermediate_size": shared * keys.count("expert_shared_count", 0),
        "routing": _read_routing(keys, gating),
    }


def _read_routing(keys: Keys, gating: int) -> Routing:
    kind = keys.count("expert_gating_func", 0) or gating
    if kind not in _GATINGS:
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('expert_gating_func')} is {kind}; supported are "
            "1 (softmax) and 2 (sigmoid)"
        )
    experts, used = keys.positive("expert_count"), keys.positive("expert_used_count")
    groups = max(1, keys.count("expert_group_count", 0))
    taken = keys.count("expert_group_used_count", 0) if groups > 1 else 1
    if experts % groups or not 1 <= taken <= groups or experts // groups * taken < used:
        raise ModelFormatError(
            f"{keys.file.path}: {used} of {experts} experts cannot be chosen from {taken} of "
            f"{groups} groups ({keys.name('expert_group_count')}, "
            f"{keys.name('expert_group_used_count')})"
        )
    return Routing(
        used,
        normalise=keys.flag("expert_weights_norm", False),
        gating=_GATINGS[kind],
        scale=keys.number("expert_weights_scale", 0.0) or 1.0,
        groups=groups,
        groups_used=taken,
    )


class BiasedExperts(Decoder):
    """Experts of a width of their own, beside shared ones, chosen as the metadata says."""

    config: BiasedExpertsConfig
    supported: ClassVar[Supported] = {"attention.causal": SUPPORTED["attention.causal"]}
    norm_topk_prob = False
    own_expert_width = True

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """See ``Decoder.read_config``."""
        keys.require(cls.supported)
        return BiasedExpertsConfig.read(keys, **biased_experts(keys))

    def routing(self) -> Routing:
        """As the metadata says."""
        return self.config.routing

    @property
    def shared_width(self) -> int:
        """Of all shared experts together."""
        return self.config.shared_intermediate_size
