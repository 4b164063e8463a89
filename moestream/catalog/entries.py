"""The entries of the two ``models.toml``: the one that is shipped, and the user's own."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from moestream.catalog.spec import NAME, ModelSpec, parse_catalog
from moestream.errors import CatalogError
from moestream.folders import config_dir, exclusive, read_text, replacing

PACKAGE = Path(__file__).resolve().parents[1]


def catalog() -> Mapping[str, ModelSpec]:
    """Return all models by name; where both files have one, it is the user's.

    Raises:
        CatalogError: a file is wrong, or the shipped one missing.
    """
    shipped, own = shipped_catalog(), user_catalog()
    return {name: _whole(_chain(name, shipped, own)) for name in shipped | own}


def layers(name: str) -> list[tuple[ModelSpec, bool]]:
    """What a model's entry is built of, the lowest first; each with whether it is the user's.

    Raises:
        CatalogError: as ``catalog``.
    """
    return _chain(name, shipped_catalog(), user_catalog())


def _chain(
    name: str, shipped: Mapping[str, ModelSpec], own: Mapping[str, ModelSpec]
) -> list[tuple[ModelSpec, bool]]:
    found: list[tuple[ModelSpec, bool]] = []
    next_name: str | None = name
    while next_name is not None:
        # One of the user's may be built on the shipped one of its own name.
        known = shipped if found and next_name == found[-1][0].name else own
        spec = known.get(next_name) or shipped.get(next_name)
        if spec is None or any(spec is each for each, _ in found):
            wrong = "is built on itself" if spec else f"is from {next_name!r}, and there is none"
            raise CatalogError(f"{user_file()}: model {name!r} {wrong}; change its from")
        found.append((spec, next_name in known and known is own))
        next_name = spec.base
    return found[::-1]


def _whole(chain: list[tuple[ModelSpec, bool]]) -> ModelSpec:
    """What a chain comes to: what a higher entry says goes before what a lower one does."""
    (whole, _), *rest = chain
    for spec, _ in rest:
        said = {each.name: getattr(spec, each.name) for each in fields(ModelSpec)}
        changes = {name: value for name, value in said.items() if value not in (None, "")}
        whole = replace(whole, **changes | {"sampling": {**whole.sampling, **spec.sampling}})
    return whole


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


def add_entry(name: str, values: Mapping[str, Any]) -> ModelSpec:
    """Append a model to the user's file and return it; the rest of the file stays as it is.

    Raises:
        CatalogError: the name is taken there, or name and values make no entry.
    """
    if not NAME.fullmatch(name):
        raise CatalogError(
            f"{name!r} cannot be a model's name: it is of lower-case letters, digits, '.', '_' "
            "and '-'"
        )
    lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
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
        if spec.base is not None:
            shipped = shipped_catalog()
            spec = _whole(_chain(name, shipped, parse_catalog(text, str(user_file()))))
        with replacing(user_file()) as file:
            file.write(text)
    return spec


def _toml(value: Any) -> str:
    """A value as TOML has it: a JSON string is one too, and so is a number."""
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value)


def remove_entry(name: str) -> None:
    """Take a model out of the user's file; the rest stays as it is.

    Raises:
        CatalogError: it is not there, written in a way that this cannot edit, or another is built
            on it.
    """
    header = rf"\[\s*(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')\s*\]"
    with _editing():
        text, before = _user_text(), user_catalog()
        above = [key for key, spec in before.items() if spec.base == name and key != name]
        if above and name not in shipped_catalog():
            raise CatalogError(f"{' and '.join(above)} are built on {name!r}: remove them first")
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
