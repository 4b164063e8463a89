"""What a run can be asked to record, and whether it can be written where it shall be."""

from collections.abc import Mapping
from pathlib import Path

import click

from moestream.cli.command import option
from moestream.cli.options.profile import complete_profile, file_callback
from moestream.folders import require_openable
from moestream.ranks.launch import follows

RECORDING_OPTIONS = (
    option(
        "--save-profile",
        section="Memory",
        callback=file_callback,
        shell_complete=complete_profile,
        metavar="NAME",
        help="Save which experts this run used.",
    ),
    option(
        "--trace",
        section="Memory",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Write each routing, for moestream simulate.",
    ),
)


def require_places(recording: Mapping[str, Path | None]) -> None:
    """See that all can be written that a run is to record, before a model is loaded for it.

    Raises:
        OSError, ProfileError: it cannot.
    """
    for name, path in recording.items():
        if follows():
            return  # the first machine's alone
        if path is not None and name == "profile":
            from moestream.profiles import require_place

            require_place(path)
        elif path is not None:
            require_openable(path)
