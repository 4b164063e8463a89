"""The models that have names: ``models.toml``, and what a MODEL argument leads to.

Owns the format of the catalogue and the step from a name or path to a file that exists. Knows
nothing of what is inside a model file, nor how one is built: that is ``demo``.
"""

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestream.errors import CatalogError, ModelNotFoundError

if TYPE_CHECKING:
    from moestream.demo import Progress

PACKAGE = Path(__file__).resolve().parent
SOURCE_KINDS = ("recipe",)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIRED: dict[str, type] = {
    "description": str,
    "licence": str,
    "architecture": str,
    "source": str,
    "size_bytes": int,
}
_OPTIONAL: dict[str, type] = {"sha256": str}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One table of ``models.toml``."""

    name: str
    description: str
    licence: str
    architecture: str
    source: str  # "KIND:WHAT"
    size_bytes: int
    sha256: str | None = None

    @property
    def kind(self) -> str:
        """How the file comes to be: one of ``SOURCE_KINDS``."""
        return self.source.partition(":")[0]


def parse_catalog(text: str, origin: str) -> dict[str, ModelSpec]:
    """Read the text of a ``models.toml``; ``origin`` names it in errors.

    Raises:
        CatalogError: not TOML, or a table that is not a model.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{origin} is not TOML: {error}") from None
    return {name: _parse_model(name, table, origin) for name, table in tables.items()}


def _parse_model(name: str, table: Any, origin: str) -> ModelSpec:
    where = f"{origin}: model {name!r}"
    if not _NAME.fullmatch(name):
        raise CatalogError(f"{where}: a name is of lower-case letters, digits, '.', '_' and '-'")
    if not isinstance(table, dict):
        raise CatalogError(f"{where}: expected a table, [{name}], not {table!r}")
    types = _REQUIRED | _OPTIONAL
    for key, value in table.items():
        if key not in types:
            raise CatalogError(f"{where}: unknown key {key!r}; the keys are {', '.join(types)}")
        if type(value) is not types[key]:
            raise CatalogError(f"{where}: {key} = {value!r} is not a {types[key].__name__}")
    missing = [key for key in _REQUIRED if key not in table]
    if missing:
        raise CatalogError(f"{where}: missing {', '.join(missing)}")
    spec = ModelSpec(name=name, **table)
    _check_values(spec, where)
    return spec


def _check_values(spec: ModelSpec, where: str) -> None:
    kind, colon, what = spec.source.partition(":")
    if kind not in SOURCE_KINDS or not colon or not what:
        raise CatalogError(
            f"{where}: source = {spec.source!r} is not KIND:WHAT with a KIND of "
            f"{', '.join(SOURCE_KINDS)}"
        )
    if spec.size_bytes <= 0:
        raise CatalogError(f"{where}: size_bytes = {spec.size_bytes} is not positive")
    if spec.sha256 is not None and not _SHA256.fullmatch(spec.sha256):
        raise CatalogError(f"{where}: sha256 = {spec.sha256!r} is not 64 lower-case hex digits")


@functools.cache
def catalog() -> Mapping[str, ModelSpec]:
    """Return the models of ``models.toml`` by name.

    Raises:
        CatalogError: the file is missing or wrong.
    """
    # A wheel carries the file inside the package; a checkout has it beside the package.
    for path in (PACKAGE / "models.toml", PACKAGE.parent / "models.toml"):
        if path.is_file():
            return parse_catalog(path.read_text(encoding="utf-8"), str(path))
    raise CatalogError(f"models.toml is missing from {PACKAGE}; install moestream again")


def resolve(model: str, *, progress: "Progress | None" = None) -> Path:
    """Return the file that a MODEL argument leads to, building the model first if need be.

    Args:
        model: a name in ``models.toml``, or a path to a file.
        progress: told how far the building is.

    Raises:
        ModelNotFoundError: neither; close matches are named.
        DownloadError, DemoBuildError: the model is not there yet, and could not be built.
    """
    if model in catalog():
        from moestream import demo  # imports NumPy: only when it is wanted

        path = demo.demo_path()
        return path if path.exists() else demo.build_demo(path.parent, progress=progress)
    path = _expand(model)
    if path.is_dir():
        raise ModelNotFoundError(_is_directory(path))
    if not path.exists():
        raise ModelNotFoundError(_is_nothing(model, path))
    return path


def _expand(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # no user of that name: a path like any other that leads nowhere
        return Path(model)


def _is_directory(path: Path) -> str:
    files = sorted(file.name for file in path.glob("*.gguf"))
    inside = f"one of the files in it: {', '.join(files[:5])}" if files else "a .gguf file"
    return f"{path} is a directory; pass {inside}"


def _is_nothing(model: str, path: Path) -> str:
    try:
        siblings = [str(path.with_name(file.name)) for file in path.parent.glob("*.gguf")]
    except OSError:
        siblings = []
    close = difflib.get_close_matches(model, [*catalog(), *siblings], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(catalog())}"
    return f"no model is called {model!r}, and no such file exists; {hint}"
