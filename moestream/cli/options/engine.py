"""The options of sampling and of the engine; names and defaults are llama.cpp's."""

import functools
from typing import Any

import click
from click.core import ParameterSource

from moestream.cli.command import Body, apply
from moestream.cli.options.fields import field_options
from moestream.declare import declared
from moestream.engine.loading import EngineOptions
from moestream.engine.options import SamplingChoice, SamplingParams, draw_seed

WHERE_SILENT = "Where a request says nothing"


def sampling_options(body: Body) -> Body:
    """Add sampling options; the body gets one ``sampling``, a ``SamplingChoice``.

    A seed that was not given is drawn here, so that it can be told and a run repeated.
    """

    @functools.wraps(body)
    def with_sampling(*args: Any, **kwargs: Any) -> None:
        said = _said(kwargs)
        body(*args, sampling=SamplingChoice({"seed": draw_seed()} | said), **kwargs)

    return apply(field_options(SamplingParams, "Sampling"), with_sampling)


def sampling_defaults(body: Body) -> Body:
    """Add what requests get that say nothing; without ``--seed``, each has one of its own."""

    @functools.wraps(body)
    def with_sampling(*args: Any, **kwargs: Any) -> None:
        body(*args, sampling=SamplingChoice(_said(kwargs)), **kwargs)

    return apply(field_options(SamplingParams, WHERE_SILENT), with_sampling)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """Take the settings out of a command's values; return those that somebody gave."""
    ctx = click.get_current_context()
    found = {name: values.pop(name) for name in declared(SamplingParams)}
    return {
        name: value
        for name, value in found.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def engine_options(body: Body) -> Body:
    """Add what ``Engine.open`` takes beside memory.

    What a backend cannot do is refused here, before a model is built or loaded for it.
    """

    @functools.wraps(body)
    def with_engine(*args: Any, **kwargs: Any) -> None:
        if kwargs["backend"] == "reference" and kwargs["threads"] is not None:
            raise click.UsageError(
                "--backend reference leaves threads to NumPy; set OMP_NUM_THREADS instead of "
                "--threads"
            )
        if kwargs["backend"] == "mlx" and kwargs["threads"] is not None:
            raise click.UsageError("--backend mlx runs on the GPU; leave --threads out")
        body(*args, **kwargs)

    return apply(field_options(EngineOptions, "Engine"), with_engine)


def context_options(body: Body) -> Body:
    """Add those of them that say how much memory a context takes."""
    names = ("context_length", "cache_type_k", "cache_type_v")
    return apply(field_options(EngineOptions, "Engine", names), body)


def comparison_options(body: Body) -> Body:
    """Add those of them that a comparison of runs has one of: the cache's types, the backend."""
    names = ("backend", "cache_type_k", "cache_type_v")
    return apply(field_options(EngineOptions, "Engine", names), body)
