"""The entries of the two ``models.toml``: the one that is shipped, and the user's own."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moestream.catalog.spec import NAME, ModelSpec, parse_catalog
from moestream.errors import CatalogError
from moestream.folders import config_dir, exclusive, read_text, replacing

PACKAGE = Path(__file__).resolve().parents[1]


def catalog() -> Mapping[str, ModelSpec]:
    """Return all models by name; where both files have one, it is the user's.

    Raises:
        CatalogError: a file is wrong, or the shipped one missing.
    """
    return shipped_catalog() | user_catalog()


def shipped_catalog() -> dict[str, ModelSpec]:
    """Return the models that moestream comes with.

    Raises:
        CatalogError: the file is wrong or missing.
    """
    # A wheel carries the file inside the package; a checkout has it beside the package.
    for path in (PACKAGE / "models.toml", PACKAGE.parent / "models.toml"):
        if path.is_file():
            return parse_catalog(read_text(path), str(path))
    raise CatalogError(f"models.toml is missing from {PACKAGE}; install moestream again")


def user_file() -> Path:
    """The user's own ``models.toml``; it need not exist."""
    return config_dir() / "models.toml"


def user_catalog() -> dict[str, ModelSpec]:
    """Return the models that the user added.

    Raises:
        CatalogError: the file is wrong.
    """
    return parse_catalog(_user_text(), str(user_file()))


def add_entry(name: str, values: Mapping[str, str | int]) -> ModelSpec:
    """Append a model to the user's file and return it; the rest of the file stays as it is.

    Raises:
        CatalogError: the name is taken there, or name and values make no entry.
    """
    if not NAME.fullmatch(name):
        raise CatalogError(
            f"{name!r} cannot be a model's name: it is of lower-case letters, digits, '.', '_' "
            "and '-'"
        )
    # A JSON string is a TOML string too, and so is a number.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    table = "\n".join([f"[{json.dumps(name)}]", *lines]) + "\n"
    with _editing():
        text = _user_text()
        if name in parse_catalog(text, str(user_file())):
            raise CatalogError(
                f"{user_file()} has a model {name!r} already; remove it first (moestream models "
                f"rm {name}), or take another name"
            )
        text = f"{text.rstrip()}\n\n{table}" if text.strip() else table
        spec = parse_catalog(text, str(user_file()))[name]
        with replacing(user_file()) as file:
            file.write(text)
    return spec


def remove_entry(name: str) -> None:
    """Take a model out of the user's file; the rest stays as it is.

    Raises:
        CatalogError: it is not there, or written in a way that this cannot edit.
    """
    header = rf"\[\s*(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')\s*\]"
    with _editing():
        text, before = _user_text(), user_catalog()
        edited = re.sub(rf"(?m)^\s*{header}[^\n]*\n(?:(?!\s*\[).*(?:\n|\Z))*", "", text)
        expected = {key: spec for key, spec in before.items() if key != name}
        if name not in before or parse_catalog(edited, str(user_file())) != expected:
            raise CatalogError(f"could not take {name!r} out of {user_file()}; edit the file")
        with replacing(user_file()) as file:
            file.write(edited)


@contextmanager
def _editing() -> Iterator[None]:
    """Keep other processes from changing the user's file between its reading and its writing."""
    config_dir().mkdir(parents=True, exist_ok=True)
    with exclusive(config_dir() / ".models.lock"):
        yield


def _user_text() -> str:
    try:
        return read_text(user_file())
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        raise CatalogError(f"{user_file()} is not UTF-8 text") from None
    except OSError as error:
        raise CatalogError(f"{user_file()} cannot be read: {error.strerror}") from None
