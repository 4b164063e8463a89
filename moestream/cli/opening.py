"""From a MODEL argument and options to an open engine, and what the user is told on the way.

Owns the words. Every command that runs a model begins so.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from moestream import ui
from moestream.cli.reports.streaming import choice_fields, choices_told, plan_fields, warnings

if TYPE_CHECKING:
    from moestream.engine.engine import Engine


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


def tell_choices(engine: "Engine", seed: int | None, *, verbose: bool) -> None:
    """Say in one line what was chosen; when verbose, how memory is divided too."""
    told = [f"backend {engine.backend.name}", _context_told(engine), f"seed {seed}"]
    ui.note(", ".join([*told, *filter(None, [choices_told(engine)])]))
    if verbose and engine.plan is not None:
        ui.note_fields("memory", plan_fields(engine.plan))
    if verbose and engine.streaming is not None:
        ui.note_fields("streaming", choice_fields(engine.streaming.choices))


def _context_told(engine: "Engine") -> str:
    keys, values = engine.kv_types
    told = f"context {engine.context_length}"
    if keys != values:
        return f"{told} with keys in {keys} and values in {values}"
    return told if keys == "f16" else f"{told} in {keys}"
