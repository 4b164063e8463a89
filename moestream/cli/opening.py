"""From a MODEL argument to an open engine, or to what a model says of itself.

Owns what the user is told on the way. Every command that runs a model, or looks at one, begins so.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from moestream import ui
from moestream.cli.reports.streaming import (
    choice_fields,
    choices_told,
    memory_told,
    plan_fields,
    warnings,
)
from moestream.errors import ModelNotFoundError

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice, SamplingParams
    from moestream.gguf import GGUFHeader


def open_engine(model: str, options: dict[str, Any], *, quiet: bool) -> "Engine":
    """Open a model, building it first if need be.

    Args:
        model: a name or a path.
        options: what ``Engine.open`` takes.
        quiet: tell nothing but errors.

    Raises:
        MoestreamError: see ``catalog.resolve`` and ``Engine.open``.
    """
    from moestream.catalog import resolve
    from moestream.engine.engine import Engine

    with ui.progress(quiet=quiet) as progress:
        path = resolve(model, progress=progress)
    options = with_preset(model, options)
    with ui.working(f"loading {model}", quiet=quiet) as progress:
        on_warmed = partial(progress, "reading the profile's experts")
        engine = Engine.open(path, **options, on_warmed=on_warmed)
    found = (*warnings(engine, options["streaming"]), context_warning(engine))
    for warning in () if quiet else filter(None, found):
        ui.warning(warning)
    return engine


def context_warning(engine: "Engine") -> str | None:
    """What to tell the user of a context that the model was not trained for, or None."""
    trained = engine.config.context_length
    if engine.context_length <= trained:
        return None
    return f"a context of {engine.context_length} is more than the model's own {trained}"


def with_preset(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """What ``Engine.open`` takes, with what the model's entry says where the user said nothing.

    Raises:
        CatalogError: a ``models.toml`` is wrong.
        ProfileError: the entry's profile is none.
    """
    from moestream.catalog import find_spec

    spec = find_spec(model)
    if spec is None:
        return options
    found = dict(options)
    if found.get("context_length") is None and spec.context is not None:
        found["context_length"] = spec.context
    if spec.profile is not None and found.get("profile") is None and found.get("budget"):
        from moestream.profiles.names import load_mixture

        found["profile"] = load_mixture(((spec.profile, 1.0),))
    return found


def preset_system(model: str, given: str | None) -> str | None:
    """The system prompt: as it was given, an empty one too, else the one of the model's entry.

    Raises:
        CatalogError: a ``models.toml`` is wrong.
    """
    from moestream.catalog import find_spec

    if given is not None:
        return given or None
    spec = find_spec(model)
    return None if spec is None else spec.system_prompt


def advised(
    model: str, engine: "Engine", choice: "SamplingChoice", *, quiet: bool
) -> "tuple[SamplingParams, Mapping[str, Any]]":
    """How a model is sampled, and what of that was its maker's advice, which is told.

    Raises:
        CatalogError: a ``models.toml`` is wrong.
    """
    from moestream.catalog import advice

    found = advice(model, engine.file)
    if not quiet and (told := found.told(choice.said)) is not None:
        ui.note(told)
    counting = {name: each for name, each in found.values.items() if name not in choice.said}
    return choice.over(found.values), counting


def tell_choices(engine: "Engine", seed: int | None, *, verbose: bool) -> None:
    """Say in one line how the model runs; when verbose, all that was chosen."""
    name = engine.file.path.name.removesuffix(".gguf")
    more = "" if verbose or engine.streaming is None else " (all choices: -v)"
    ui.note(f"{name}: {memory_told(engine)}{more}; {_context_told(engine)}, seed {seed}")
    if not verbose:
        return
    told = [f"backend {engine.backend.name}", f"draft {engine.drafts.kind}", choices_told(engine)]
    ui.note(", ".join(filter(None, told)))
    if engine.plan is not None:
        ui.note_fields("memory", plan_fields(engine.plan))
    if engine.streaming is not None:
        ui.note_fields("streaming", choice_fields(engine.streaming.choices))


def _context_told(engine: "Engine") -> str:
    keys, values = engine.kv_types
    told = f"context {engine.context_length}"
    if keys != values:
        return f"{told} with keys in {keys} and values in {values}"
    return told if keys == "f16" else f"{told} in {keys}"


def open_header(model: str, *, build: bool, quiet: bool) -> "GGUFHeader":
    """Open a model's file; of one that is not here, fetch the header alone.

    Args:
        model: a name, ``hf:ORG/REPO[:QUANT|FILE]`` or a path.
        build: whether to build a model that has a recipe.
        quiet: tell nothing but errors.

    Raises:
        ModelNotFoundError: there is none; or it would have to be built.
        DownloadError: the hub could not be asked.
        ModelFormatError, UnsupportedQuantError: it is no sound GGUF file.
    """
    from moestream.catalog import find_spec, locate, resolve
    from moestream.gguf import GGUFFile

    spec = find_spec(model)
    if spec is not None and locate(spec) is None:
        if spec.kind == "hf":
            return _of_hub(spec, quiet)
        if spec.kind == "recipe" and not build:
            raise ModelNotFoundError(
                f"{model} is not here yet, and it has no header before it is built; build it with: "
                f"moestream models pull {model}"
            )
    with ui.progress(quiet=quiet) as progress:
        path = resolve(model, progress=progress)
    return GGUFFile.open(path)


def _of_hub(spec: "ModelSpec", quiet: bool) -> "GGUFHeader":
    from moestream.hub import parse_reference
    from moestream.hub.http import endpoint
    from moestream.hub.remote_header import fetch_header
    from moestream.hub.repository import look_up
    from moestream.offline import require_online

    reference = parse_reference(spec.source)
    require_online(reference.repository)
    with ui.working(f"reading a header of {reference.repository} at {endpoint()}", quiet=quiet):
        return fetch_header(*look_up(reference))
