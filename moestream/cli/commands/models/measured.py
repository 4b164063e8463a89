"""What is known of this machine for lists of models: as ``plan`` measured it, or measured now."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from moestream import ui
from moestream.cli.command import option
from moestream.errors import MoestreamError

if TYPE_CHECKING:
    from moestream.forecast.estimate import Measured

measure_option = option(
    "--measure",
    section="Speed",
    is_flag=True,
    help="Measure what is not known yet of this machine's speed (some 10 seconds, once).",
)
"""The body gets ``measure``."""


def measured_before() -> "Measured":
    """What was measured before; nothing where the kernels are not compiled."""
    from moestream.forecast.estimate import Measured

    try:
        from moestream.machine.speeds import measured_speeds

        return Measured(*measured_speeds())
    except MoestreamError:  # the kernels are not compiled, or not for this processor
        return Measured()


def measured_now(types: Iterable[str], *, quiet: bool) -> "Measured":
    """Measure what is not known yet, for kernels of some types."""
    from moestream.forecast.estimate import Measured
    from moestream.machine.speeds import known_speeds

    with ui.progress(quiet=quiet) as progress:
        speeds, disk = known_speeds(None, set(types), step=lambda name: progress(name, 0, 1))
    return Measured(speeds, disk)
