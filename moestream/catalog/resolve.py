"""From a MODEL argument to a file: a name in the catalogue, an ``hf:`` reference, or a path."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moestream import hub
from moestream.catalog.entries import catalog
from moestream.catalog.spec import ModelSpec
from moestream.errors import CatalogError, ModelNotFoundError
from moestream.folders import find_name, has_suffix, link_told
from moestream.hub.stores import everything, hf_cache, llama_cpp, lmstudio, ollama

if TYPE_CHECKING:
    from moestream.progress import Progress

RECIPES = ("demo",)
_STORES = {"ollama": "Ollama's store", "lmstudio": "LM Studio's folder"}


def resolve(model: str, *, progress: "Progress | None" = None) -> Path:
    """Return the file that a MODEL argument leads to, building the model first if need be.

    Nothing is downloaded here but what a recipe is made of: a model from the hub takes long and
    much room, so that is asked for by name (``moestream models pull``).

    Args:
        model: a name in the catalogue, ``hf:ORG/REPO[:QUANT|FILE]``, or a path to a file.
        progress: told how far the building is.

    Raises:
        ModelNotFoundError: none of these, or not here yet; close matches are named.
        CatalogError: an entry whose source cannot be.
        DownloadError, DemoBuildError: the model is not there yet, and could not be built.
    """
    spec = find_spec(model)
    if spec is not None:
        path = locate(spec)
        return path if path is not None else _obtain(spec, progress)
    path = _expand(model)
    if not os.path.lexists(path):  # also what is too long for a path
        raise ModelNotFoundError(_is_nothing(model, path))
    if (told := link_told(path)) is not None:
        raise ModelNotFoundError(told)
    if path.is_dir():
        raise ModelNotFoundError(_is_directory(path))
    return path


def find_spec(model: str) -> ModelSpec | None:
    """Return the entry that a name or an ``hf:`` reference stands for, None for a path.

    Raises:
        ModelNotFoundError: an ``hf:`` reference that is none.
    """
    known = catalog()
    if model in known:
        return known[model]
    if hub.is_reference(model):
        return ModelSpec(model, str(hub.parse_reference(model)))
    if model.startswith((ollama.PREFIX, lmstudio.PREFIX)):
        return ModelSpec(model, model)
    meant = None if os.path.lexists(_expand(model)) else find_name(model, known)
    return None if meant is None else known[meant]


def fetched_without_name(known: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """The models that were fetched from the hub and are none of ``known``, by ``hf:`` reference."""
    named = {locate(spec) for spec in known.values()}
    found = {str(reference): path for reference, path in hub.here() if path not in named}
    return {name: ModelSpec(name, name, description="fetched from the hub") for name in found}


def in_stores(known: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """The models that other programs have here and that are none of ``known``, by name."""
    paths = {locate(spec) for spec in known.values()}
    found = {each.name: each for each in everything() if each.path not in paths}
    return {
        name: ModelSpec(name, name, description=f"in {each.store}") for name, each in found.items()
    }


def locate(spec: ModelSpec) -> Path | None:
    """Return the file of an entry, None where it is not here.

    Raises:
        CatalogError: a source that cannot be.
        ModelNotFoundError: a source that names no repository, or nothing of another program.
    """
    if spec.kind == "hf":
        reference = hub.parse_reference(spec.source)
        return hub.find(reference) or hf_cache.find(reference) or llama_cpp.find(reference)
    if spec.kind == "ollama":
        return ollama.find(spec.what)
    if spec.kind == "lmstudio":
        return lmstudio.find(spec.what)
    path = _expand(spec.what)
    if spec.kind == "recipe":
        if spec.what not in RECIPES:
            raise CatalogError(
                f"model {spec.name!r}: no recipe is called {spec.what!r}; there are: "
                f"{', '.join(RECIPES)}"
            )
        from moestream import demo  # imports NumPy: only when it is wanted

        path = demo.demo_path()
    return path if os.path.lexists(path) else None


def _obtain(spec: ModelSpec, progress: "Progress | None") -> Path:
    if spec.kind == "recipe":
        from moestream import demo

        return demo.build_demo(demo.demo_path().parent, progress=progress)
    if spec.kind == "file":
        raise ModelNotFoundError(
            f"{spec.name} is {spec.what}, and no such file exists; put it there, or remove the "
            f"entry: moestream models rm {spec.name}"
        )
    if spec.kind in ("ollama", "lmstudio"):
        raise ModelNotFoundError(
            f"{spec.name}: there is no {spec.what} in {_STORES[spec.kind]}; moestream models list "
            "--all shows what other programs have here"
        )
    size = f" ({spec.size_bytes / 1e9:.1f} GB)" if spec.size_bytes else ""
    raise ModelNotFoundError(
        f"{spec.name} is not here yet; fetch it{size} with: moestream models pull {spec.name}"
    )


def _expand(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # no user of that name: a path like any other that leads nowhere
        return Path(model)


def _is_directory(path: Path) -> str:
    files = sorted(file.name for file in path.iterdir() if has_suffix(file.name, hub.SUFFIX))
    inside = f"one of the files in it: {', '.join(files[:5])}" if files else "a .gguf file"
    return f"{path} is a directory; pass {inside}"


def _is_nothing(model: str, path: Path) -> str:
    try:
        files = (file.name for file in path.parent.iterdir() if has_suffix(file.name, hub.SUFFIX))
        siblings = [str(path.with_name(name)) for name in files]
    except OSError:
        siblings = []
    names = {name.lower(): name for name in [*catalog(), *siblings]}
    close = [names[name] for name in difflib.get_close_matches(model.lower(), names, n=3)]
    hint = "moestream models list shows those that have names"
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif any(map(str.isspace, model)):
        hint = "a prompt goes after the model, or after -p"
    return f"no model is called {model!r}, and no such file exists; {hint}"
