"""The metadata of Mamba-2 layers, and what models that have some keep of the tokens they saw."""

from moestream.errors import ModelFormatError
from moestream.layers.cache import RecurrentShape, StateShape
from moestream.layers.mamba2 import Mamba2Shape
from moestream.models.config import ModelConfig
from moestream.models.keys import Keys


def hybrid_states(
    config: ModelConfig, mamba: Mamba2Shape, networks: tuple[bool, ...] = ()
) -> tuple[StateShape, ...]:
    """Keys and values where a layer attends, nothing of networks, else the recurrence's state."""
    attended = ModelConfig.state_shapes(config)
    networks = networks or (False,) * config.num_layers
    recurrent = mamba.state()
    return tuple(
        shape if heads else RecurrentShape(()) if network else recurrent
        for shape, heads, network in zip(attended, config.kv_heads, networks, strict=True)
    )


def read_mamba2(keys: Keys) -> Mamba2Shape:
    """Read the sizes of such layers.

    Raises:
        ModelFormatError: they do not divide.
    """
    heads, inner = keys.positive("ssm.time_step_rank"), keys.positive("ssm.inner_size")
    groups = keys.positive("ssm.group_count")
    if inner % heads or heads % groups:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('ssm.inner_size')} is {inner}, which does not divide "
            f"among {heads} heads ({keys.name('ssm.time_step_rank')}) in {groups} groups"
        )
    shape = Mamba2Shape(
        heads=heads,
        dim=inner // heads,
        size=keys.positive("ssm.state_size"),
        groups=groups,
        conv_width=keys.size("ssm.conv_kernel"),
    )
    keys.require_size("the width of what is convolved", shape.channels)
    return shape
