"""The metadata of Mamba-2 layers."""

from moestream.errors import ModelFormatError
from moestream.layers.mamba2 import Mamba2Shape
from moestream.models.keys import Keys


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
