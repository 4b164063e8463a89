"""What descends from DeepSeek's mixture: leading dense layers, shared experts, groups of experts.

Its layers that predict further tokens are left out.

Source: arXiv 2401.06066, 2412.19437; llama.cpp, src/llama-graph.cpp (``build_moe_ffn``).
"""

from dataclasses import dataclass
from typing import ClassVar

from moestream.backends import Gating, Routing
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys, Supported

_READ_HERE = {"expert_group_count", "expert_gating_func", "nextn_predict_layers"}
_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeekMoEConfig(ModelConfig):
    """``shared_experts`` are as wide together as so many routed ones."""

    routing: Routing
    shared_experts: int


class DeepSeekMoE(Decoder):
    """A decoder with such a mixture."""

    supported: ClassVar[Supported] = {
        key: value for key, value in SUPPORTED.items() if key not in _READ_HERE
    }
    own_expert_width = True
    config: DeepSeekMoEConfig

    @classmethod
    def read_config(cls, keys: Keys) -> DeepSeekMoEConfig:
        """Add the mixture's keys."""
        keys.require(cls.supported)
        return DeepSeekMoEConfig.read(keys, **read_mixture(keys))

    def routing(self) -> Routing:
        """As the file says."""
        return self.config.routing

    @property
    def shared_width(self) -> int:
        """All shared experts side by side."""
        return self.config.shared_experts * self.expert_width


def read_mixture(
    keys: Keys, gating: Gating = "sigmoid", shared: int | None = None
) -> dict[str, object]:
    """Fields of the mixture; ``gating`` and ``shared`` are those of a file that does not say.

    Raises:
        ModelFormatError: groups that make no sense.
        UnsupportedModelError: another gating.
    """
    return {
        "routing": _read_routing(keys, gating),
        "shared_experts": keys.count("expert_shared_count", shared),
        "leading_dense_layers": keys.count("leading_dense_block_count", 0),
    }


def _read_routing(keys: Keys, gating: Gating) -> Routing:
    number = keys.count("expert_gating_func", 0)
    if number and number not in _GATINGS:
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('expert_gating_func')} is {number}; supported are "
            "1: softmax and 2: sigmoid; choose another model"
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
