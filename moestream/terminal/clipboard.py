"""The clipboard: by the system's own program, or by the terminal, which also works over ssh."""

import base64
import os
import shutil
import subprocess
import sys

from moestream.errors import ChatUsageError

_PROGRAMS = (
    ("", ("pbcopy",)),
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("WSL_DISTRO_NAME", ("clip.exe",)),
)
"""What must be in the environment, and what is run."""
_LONGEST_S = 5.0
_MOST_BYTES = 70_000
"""Of text in base64: what terminals take at a time."""


def copy(text: str) -> None:
    """Put a text on the clipboard.

    Raises:
        ChatUsageError: there is none, or the terminal takes no text so long.
    """
    for variable, command in _PROGRAMS:
        if (not variable or os.environ.get(variable)) and shutil.which(command[0]):
            try:
                subprocess.run(command, input=text.encode(), check=True, timeout=_LONGEST_S)
            except (OSError, subprocess.SubprocessError) as error:
                raise ChatUsageError(f"{command[0]} could not copy it: {error}") from None
            return
    _by_terminal(text)


def _by_terminal(text: str) -> None:
    if sys.stdout is None or not sys.stdout.isatty():
        raise ChatUsageError("there is no clipboard here: no program for it, and no terminal")
    data = base64.b64encode(text.encode()).decode()
    if len(data) > _MOST_BYTES:
        raise ChatUsageError("it is too long for a terminal's clipboard; /save writes it to a file")
    sys.stdout.write(f"\x1b]52;c;{data}\a")
    sys.stdout.flush()
