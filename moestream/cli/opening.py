"""From a MODEL argument to an open engine, or to what a model says of itself.

Owns what the user is told on the way. Every command that runs a model, or looks at one, begins so.
"""

import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestream import ui
from moestream.cli.reports.streaming import (
    choice_fields,
    choices_told,
    memory_told,
    plan_fields,
    warnings,
)
from moestream.errors import ModelNotFoundError, RankError
from moestream.progress import Progress
from moestream.ranks.launch import launched
from moestream.ranks.options import Sharing
from moestream.terminal.interrupt import doubt_ends

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice, SamplingParams
    from moestream.gguf import GGUFHeader
    from moestream.ranks.link import Link


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

    link, options, sharing = linked(options)
    with ui.progress(quiet=quiet) as progress:
        path = resolve(model, progress=progress)
    options = with_preset(model, options)
    with ui.working(f"loading {model}", quiet=quiet) as progress:
        engine = open_here_or_shared(link, model, path, options, sharing, progress)
    found = (*warnings(engine, options["streaming"]), context_warning(engine))
    for warning in () if quiet else filter(None, found):
        ui.warning(warning)
    return engine


def open_here_or_shared(
    link: "Link | None",
    model: str,
    path: Path,
    options: dict[str, Any],
    sharing: Sharing,
    progress: Progress,
) -> "Engine":
    """Open the file of a model: all of it, or with other machines, the first layers.

    Raises:
        MoestreamError: see ``Engine.open`` and ``open_shared``.
    """
    from moestream.streaming.memory import keep_from_collector

    if link is None:
        from moestream.engine.engine import Engine

        if sharing != Sharing():
            flag = "--hosts-share" if sharing.shares else "--verify full"
            raise RankError(
                f"{flag} is for several machines, and this process is alone; start it with "
                "mlx.launch --hosts A,B -- moestream ..."
            )
        on_warmed = partial(progress, "reading the profile's experts")
        engine = Engine.open(path, **options, on_warmed=on_warmed)
    else:
        from moestream.ranks.joining import open_shared

        told = partial(progress, "comparing the machines' files")
        engine = open_shared(link, model, path, options, sharing, told)
    keep_from_collector()
    return engine


def linked(
    options: dict[str, Any],
) -> "tuple[Link | None, dict[str, Any], Sharing]":
    """The link to the other machines, what an engine is opened with, and what is asked of them.

    On any machine but the first this does what the first wants, and then ends the process.

    Raises:
        RankError: they cannot be joined.
    """
    options = dict(options)
    sharing = Sharing(options.pop("hosts_share", ()), options.pop("verify", "header") == "full")
    if launched() is None:
        return None, options, sharing
    from moestream.ranks.joining import joined

    ui.hide_lines("[ring]")  # MLX's own words on a connection that ends
    link = joined()
    if link is None:
        return None, options, sharing
    if link.rank == 0:
        doubt_ends(link.fails_soon)  # who started the ranks ends all of them when one has ended
        return link, options, sharing
    attend_to(link, options)
    sys.exit(0)


def attend_to(link: "Link", options: dict[str, Any]) -> None:
    """Run a part of the models that the first machine opens, until it ends; that hears signals."""
    from moestream.catalog import resolve
    from moestream.ranks.attending import attend

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    attend(link, options, resolve)


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
    wanted = found.get("profile") is None and found.get("budget")
    if spec.profile is not None and wanted:
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
