"""The profiles that have names: where their files lie, and what a NAME leads to.

Owns the folder and the rule for names. What is in a file is ``files``'s affair.
"""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from moestream.errors import ProfileError

if TYPE_CHECKING:
    from moestream.profiles import Profile

SUFFIX = ".json"
_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_BYTES = 200  # with the suffix of a temporary file, within what file systems take

Part = tuple[str, float]
"""A profile's NAME and its weight in a mixture."""


def data_dir() -> Path:
    """The folder of what moestream keeps for its user (``MOESTREAM_DATA``)."""
    return Path(os.environ.get("MOESTREAM_DATA") or platformdirs.user_data_dir("moestream"))


def profiles_dir() -> Path:
    """The folder of the profiles that have names; it need not exist."""
    return data_dir() / "profiles"


def profile_path(name: str) -> Path:
    """Return the file that a NAME leads to, there or not: what ends in .json is a path itself.

    Raises:
        ProfileError: it is neither.
    """
    if name.endswith(SUFFIX):
        return Path(name)
    if not _NAME.fullmatch(name) or len(name.encode(errors="replace")) > _LONGEST_BYTES:
        raise ProfileError(
            f"{name!r} is no name of a profile: expected letters, digits, '.', '_' and '-', or a "
            f"path that ends in {SUFFIX}"
        )
    return profiles_dir() / f"{name}{SUFFIX}"


def profile_names() -> list[str]:
    """Names of the profiles in the folder."""
    try:
        files = [file.stem for file in profiles_dir().iterdir() if file.suffix == SUFFIX]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProfileError(f"{profiles_dir()}: cannot be read: {error.strerror}") from None
    return sorted(name for name in files if _NAME.fullmatch(name))


def load_profile(name: str) -> "Profile":
    """Read a profile by its name or path.

    Raises:
        ProfileError: there is none (close names are given), or its file is not sound.
    """
    from moestream.profiles import read_profile

    path = profile_path(name)
    if not path.exists():
        raise ProfileError(_is_missing(name, path))
    return read_profile(path, path.stem if name.endswith(SUFFIX) else name)


def load_mixture(parts: Sequence[Part]) -> "Profile":
    """Read one profile, or several and mix them by weight.

    Raises:
        ProfileError: see ``load_profile``; or they are of different models.
    """
    from moestream.profiles import mix

    loaded = [(load_profile(name), weight) for name, weight in parts]
    if len(loaded) == 1:
        return loaded[0][0]
    return mix(loaded, ",".join(f"{profile.name}:{weight:g}" for profile, weight in loaded))


def remove_profile(name: str) -> Path:
    """Delete a profile from the folder, sound or not, and return where it was.

    Raises:
        ProfileError: there is none; or a path, which is not ours to delete.
    """
    path = profile_path(name)
    if name.endswith(SUFFIX):
        raise ProfileError(
            f"{name} is a file of your own, not a profile's name: delete it yourself"
        )
    try:
        path.unlink()
    except FileNotFoundError:
        raise ProfileError(_is_missing(name, path)) from None
    except OSError as error:
        raise ProfileError(f"{path}: cannot be deleted: {error.strerror}") from None
    return path


def _is_missing(name: str, path: Path) -> str:
    if name.endswith(SUFFIX):
        return f"{path}: no such profile"
    names = profile_names()
    close = difflib.get_close_matches(name, names)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"
    hint = hint if names else f"there are none; make it with: moestream profile save {name}"
    return f"no profile is called {name!r} in {path.parent}; {hint}"
