"""What several commands take: the MODEL argument, sampling and engine options.

Options have llama.cpp's names where it has them. Defaults are repeated here, for ``--help`` is not
to import NumPy; a test holds them to those of ``SamplingParams`` and ``Engine.open``.
"""

import functools
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from moestream.cli.command import Option

Body = Callable[..., None]
BACKENDS = ("auto", "cpu", "mlx", "reference")

CACHE_TYPES = ("f16", "f32", "q8_0")
_SAMPLING_NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)


def apply(options: Sequence[Callable[[Body], Body]], body: Body) -> Body:
    """Decorate ``body`` with options; they are listed in this order in its help."""
    for option in reversed(options):
        body = option(body)
    return body


def _complete_model(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    # Names or files: bash forgets all names where a file is among what is offered.
    return complete_name(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the names in the catalogue."""
    from moestream.catalog import catalog

    return [
        CompletionItem(spec.name, help=spec.description)
        for spec in catalog().values()
        if spec.name.startswith(incomplete)
    ]


def model_argument(**kwargs: Any) -> Callable[[Body], Body]:
    """MODEL: a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path.

    Where it may be left out, ``MOESTREAM_MODEL`` is what it is then.
    """
    if "default" in kwargs:
        kwargs = {"envvar": "MOESTREAM_MODEL"} | kwargs
    return click.argument("model", shell_complete=_complete_model, **kwargs)


def _sampling_option(*names: str, **kwargs: Any) -> Callable[[Body], Body]:
    kwargs = {"metavar": "N", "callback": require_finite} | kwargs
    return click.option(*names, cls=Option, section="Sampling", show_default=True, **kwargs)


def require_finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Reject NaN, which click lets through any range, and infinities."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", ctx, param)
    return value


def sampling_options(body: Body) -> Body:
    """Add llama.cpp's sampling options; ``body`` gets one ``sampling``, a ``SamplingParams``.

    A seed that was not given is drawn here, so that it can be told and a run repeated.
    """

    @functools.wraps(body)
    def with_params(*args: Any, **kwargs: Any) -> None:
        from moestream.sampling import SamplingParams

        values = {name: kwargs.pop(name) for name in _SAMPLING_NAMES}
        if values["seed"] == -1:
            values["seed"] = secrets.randbits(32)
        body(*args, sampling=SamplingParams(**values), **kwargs)

    return apply(_SAMPLING_OPTIONS, with_params)


_SAMPLING_OPTIONS = (
    _sampling_option(
        "--temp",
        "--temperature",
        "temperature",
        type=click.FloatRange(min=0),
        default=0.8,
        help="Temperature; 0 always takes the likeliest token.",
    ),
    _sampling_option(
        "--top-k",
        type=click.IntRange(min=0),
        default=40,
        help="Choose among the N likeliest tokens; 0 is off.",
    ),
    _sampling_option(
        "--top-p",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=0.95,
        help="Choose among the likeliest tokens that together reach P; 1 is off.",
        metavar="P",
    ),
    _sampling_option(
        "--min-p",
        type=click.FloatRange(min=0, max=1),
        default=0.05,
        help="Choose among tokens at least P times as likely as the likeliest; 0 is off.",
        metavar="P",
    ),
    _sampling_option(
        "--repeat-penalty",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        help="Divide the scores of tokens seen of late by this; 1 is off.",
    ),
    _sampling_option(
        "--repeat-last-n",
        type=click.IntRange(min=-1),
        default=64,
        help="How many tokens back penalties look; 0 is none, -1 is all.",
    ),
    _sampling_option(
        "--presence-penalty",
        type=float,
        default=0.0,
        help="Take this off the score of tokens seen of late; 0 is off.",
    ),
    _sampling_option(
        "--frequency-penalty",
        type=float,
        default=0.0,
        help="The same, for each time that they were seen; 0 is off.",
    ),
    _sampling_option(
        "-s",
        "--seed",
        type=click.IntRange(min=-1, max=2**32 - 1),
        default=-1,
        help="Seed of the random choices; -1 draws one.",
    ),
)


def engine_options(body: Body) -> Body:
    """Add what ``Engine.open`` takes: ``context_length``, cache types, threads, backend.

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

    return apply(_ENGINE_OPTIONS, with_engine)


def context_options(body: Body) -> Body:
    """Add those of them that say how much memory a context takes."""
    return apply((_CONTEXT, *_CACHE_TYPES), body)


def comparison_options(body: Body) -> Body:
    """Add those of them that a comparison of runs has one of: the cache's types, the backend."""
    return apply((*_CACHE_TYPES, _BACKEND), body)


def _cache_type_option(short: str, name: str, what: str) -> Callable[[Body], Body]:
    return click.option(
        short,
        f"--{name}",
        cls=Option,
        section="Engine",
        type=click.Choice(CACHE_TYPES),
        default="f16",
        show_default=True,
        help=f"How {what} are stored in the KV cache; q8_0 takes half the memory of f16.",
    )


_CONTEXT = click.option(
    "-c",
    "--ctx-size",
    "context_length",
    cls=Option,
    section="Engine",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of context; by default the model's own, at most 8192.",
)
_CACHE_TYPES = (
    _cache_type_option("-ctk", "cache-type-k", "keys"),
    _cache_type_option("-ctv", "cache-type-v", "values"),
)
_BACKEND = click.option(
    "--backend",
    cls=Option,
    section="Engine",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What does the maths; auto takes the fastest that runs here.",
)
_ENGINE_OPTIONS = (
    _CONTEXT,
    *_CACHE_TYPES,
    click.option(
        "-t",
        "--threads",
        cls=Option,
        section="Engine",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads; by default one a physical core.",
    ),
    _BACKEND,
)
