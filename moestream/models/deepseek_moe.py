"""What descends from DeepSeek's mixture: leading dense layers, shared experts, groups of experts.

Its layers that predict further tokens are left out.

Source: arXiv 2401.06066, 2412.19437; llama.cpp, src/llama-graph.cpp (``build_moe_ffn``).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.backends import Activation, Gating, Routing
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.layers.ffn import Gate
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys, Supported

_READ_HERE = {"expert_group_count", "expert_gating_func", "nextn_predict_layers"}
_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid", 4: "sqrt_softplus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeekMoEConfig(ModelConfig):
    """``shared_experts`` are as wide together as so many routed ones.

    ``limits`` of inner values are by layer, 0 for none: of experts, and of other networks where
    they have their own.
    """

    routing: Routing
    shared_experts: int
    limits: tuple[float, ...] = ()
    shared_limits: tuple[float, ...] = ()


class DeepSeekMoE(Decoder):
    """A decoder with such a mixture."""

    supported: ClassVar[Supported] = {
        key: value for key, value in SUPPORTED.items() if key not in _READ_HERE
    }
    own_expert_width = True
    default_gating: ClassVar[Gating] = "sigmoid"
    """Of a file that does not say."""
    default_shared: ClassVar[int | None] = None
    """Shared experts of a file that does not say; None: it must."""
    normalise: ClassVar[bool | None] = None
    """Whether router weights sum to one; None: as the file says."""
    limited: ClassVar[Activation] = "silu_capped"
    """What scales inner values that have a limit."""
    config_type: ClassVar[type[ModelConfig]] = DeepSeekMoEConfig
    config: DeepSeekMoEConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The mixture's fields."""
        return {
            "routing": _read_routing(keys, cls.read_default_gating(keys)),
            "shared_experts": keys.count("expert_shared_count", cls.default_shared),
            "leading_dense_layers": keys.count("leading_dense_block_count", 0),
        }

    @classmethod
    def read_default_gating(cls, keys: Keys) -> Gating:
        """How a router judges whose gating the file does not name."""
        return cls.default_gating

    def routing(self) -> Routing:
        """As the file says, but where the architecture decides what is normalised."""
        routing = self.config.routing
        return routing if self.normalise is None else replace(routing, normalise=self.normalise)

    def gating(self, index: int) -> Gate:
        """Limited where the layer has a limit."""
        return self._gate(self.config.limits, index)

    def shared_gating(self, index: int) -> Gate:
        """The same, by limits of their own if there are any."""
        return self._gate(self.config.shared_limits or self.config.limits, index)

    @property
    def shared_width(self) -> int:
        """All shared experts side by side."""
        return self.config.shared_experts * self.expert_width

    def _gate(self, limits: tuple[float, ...], index: int) -> Gate:
        limit = limits[index] if limits else 0.0
        return Gate(self.limited, limit) if limit else Gate(self.activation)


def read_limits(keys: Keys) -> dict[str, object]:
    """Limits of experts and those of other networks, 0 where the file does not say."""
    layers = keys.num_layers()
    return {
        "limits": keys.per_layer_numbers("swiglu_clamp_exp", layers, 0.0),
        "shared_limits": keys.per_layer_numbers("swiglu_clamp_shexp", layers, 0.0),
    }


def read_told_limits(keys: Keys) -> dict[str, object]:
    """Limits of experts, and of other networks where the file has them apart."""
    layers, shared = keys.num_layers(), "swiglu_clamp_shexp"
    told = keys.name(shared) in keys.file.metadata
    return {
        "limits": keys.per_layer_numbers("swiglu_clamp_exp", layers, 0.0),
        "shared_limits": keys.per_layer_numbers(shared, layers) if told else (),
    }


def _read_routing(keys: Keys, gating: Gating) -> Routing:
    number = keys.count("expert_gating_func", 0)
    if number and number not in _GATINGS:
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('expert_gating_func')} is {number}; supported are "
            "1: softmax, 2: sigmoid and 4: sqrt_softplus; choose another model"
        )
    groups = keys.count("expert_group_count", 0) or 1
    used = keys.count("expert_group_used_count", 0) if groups > 1 else 1
    experts, chosen = keys.count("expert_count", 0), keys.count("expert_used_count", 0)
    if experts % groups or not 1 <= used <= groups or chosen > used * (experts // groups):
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('expert_group_count')} is {groups} and "
            f"{keys.name('expert_group_used_count')} is {used}, of which {chosen} of {experts} "
            "experts cannot be chosen; expected groups of one size that hold them"
        )
    return Routing(
        chosen,
        normalise=keys.flag("expert_weights_norm", False),
        gating=_GATINGS.get(number, gating),
        scale=keys.number("expert_weights_scale", 0.0) or 1.0,
        groups=groups,
        groups_used=used,
    )
