"""The options of sampling and of the engine; names and defaults are llama.cpp's."""

import functools
from typing import Any

import click

from moestream.cli.command import Body, apply
from moestream.cli.options.fields import field_options, filled_by
from moestream.declare import declared
from moestream.engine.options import EngineOptions, SamplingParams, draw_seed


def _sampling(seed: int | None, **values: Any) -> SamplingParams:
    """A seed that was not given is drawn here, so that it can be told and a run repeated."""
    return SamplingParams(seed=draw_seed() if seed is None else seed, **values)


sampling_options = filled_by(
    _sampling,
    "sampling",
    field_options(SamplingParams, "Sampling"),
    tuple(declared(SamplingParams)),
)
"""Add sampling options; the body gets one ``sampling``, a ``SamplingParams``."""


def engine_options(body: Body) -> Body:
    """Add what ``Engine.open`` takes: ``context_length``, ``threads``, backend, cache types.

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
