"""The options that say where experts are kept and how they are read, and which go together.

Every command that runs a model uses these. Defaults and names are repeated here, for ``--help`` is
not to import NumPy; a test holds them to those of ``StreamingOptions`` and ``POLICIES``.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from moestream.cli.command import Option
from moestream.cli.options import Body, apply, require_finite
from moestream.cli.profile_option import complete_profile, file_callback, parts_callback
from moestream.cli.split_option import split_callback
from moestream.errors import BudgetError

POLICIES = ("decay", "blend", "lru", "lfu", "lcp", "lfru", "arc", "random")
_NAMES = (
    *("io", "pin", "policy", "prefetch", "prefetch_layers", "half_life", "window", "profile"),
    *("layer_budget", "prefetch_mass", "split"),
)


def streaming_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``budget``, ``streaming``, ``trace`` and ``save_profile``.

    The first two are for ``Engine.open``, the others for ``Recording``. ``streaming`` is None where
    nothing was asked for: the engine then streams only if it must.
    """

    @functools.wraps(body)
    def with_streaming(*args: Any, budget: str | None, **kwargs: Any) -> None:
        opening = _opening(budget, _take_given(kwargs))
        body(*args, **opening, **kwargs)

    return apply((budget_option, *_HOW, *_RECORDING), with_streaming)


def streaming_comparison(body: Body) -> Body:
    """Add the same but for a trace; of budgets there may be several, separated by commas.

    ``body`` gets ``openings``: what ``Engine.open`` takes, by the budget as it was given.
    """

    @functools.wraps(body)
    def with_openings(*args: Any, budgets: tuple[str, ...] | None, **kwargs: Any) -> None:
        given = _take_given(kwargs)
        openings = {budget or "auto": _opening(budget, given) for budget in budgets or (None,)}
        body(*args, openings=openings, **kwargs)

    return apply((_BUDGETS, *_HOW), with_openings)


def _take_given(kwargs: dict[str, Any]) -> dict[str, Any]:
    values = {name: kwargs.pop(name) for name in _NAMES}
    return {name: value for name, value in values.items() if value is not None}


def _opening(budget: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Engine.open`` is to be given."""
    _check(budget, given)
    if "none" in (budget, given.get("policy")):
        return {"budget": None, "streaming": None}
    from moestream.experts.streaming import StreamingOptions

    if "profile" in given:
        from moestream.profile_names import load_mixture

        given = {**given, "profile": load_mixture(given["profile"])}
    return {"budget": budget or "auto", "streaming": StreamingOptions(**given) if given else None}


def _check(budget: str | None, given: Mapping[str, Any]) -> None:
    """Reject what would have no effect beside something else.

    Raises:
        click.UsageError: such a combination; the message names both.
    """
    _check_mapped(budget, given)
    io, pin, policy = (given.get(name, "auto") for name in ("io", "pin", "policy"))
    if io == "madvise" and pin == "copy":
        raise click.UsageError(
            "--io madvise leaves experts in the mapped file, so --pin copy does nothing; "
            "pin by mlock, or read by pread or direct"
        )
    if io in ("pread", "direct") and pin in ("mlock", "none"):
        raise click.UsageError(
            f"--io {io} reads experts into memory of its own, where all are pinned by copy; "
            f"--pin {pin} goes with --io madvise"
        )
    if pin == "none":
        _reject(
            "--pin none keeps no expert",
            given,
            ("policy", "half_life", "window", "layer_budget", "split"),
        )
    if given.get("split", 1) != 1 and (io == "madvise" or pin == "mlock"):
        flag = "--io madvise" if io == "madvise" else "--pin mlock"
        raise click.UsageError(
            f"{flag} leaves experts in the mapped file, so --split has no parts to keep; "
            "read by pread or direct"
        )
    if given.get("prefetch") is False:
        _reject("--no-prefetch reads nothing ahead", given, ("prefetch_layers", "prefetch_mass"))
    if "half_life" in given or "window" in given:
        _check_settings("decay" if policy == "auto" else policy, given)


def _check_mapped(budget: str | None, given: Mapping[str, Any]) -> None:
    if given.get("policy") == "none":
        others = {name: value for name, value in given.items() if name != "policy"}
        if budget not in (None, "none"):
            others = {"budget": budget, **others}
        _reject("--policy none maps the file and streams nothing", others, tuple(others))
    elif budget == "none":
        _reject("--budget none maps the file and streams nothing", given, tuple(given))


def _check_settings(policy: str, given: Mapping[str, Any]) -> None:
    from moestream.experts.streaming import POLICY_SETTINGS

    taken = POLICY_SETTINGS.get(policy, ())
    others = [name for name in ("half_life", "window") if name not in taken]
    _reject(f"--policy {policy} has no use for it", given, tuple(others))


def _reject(reason: str, given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    flags = [_flag(name, given[name]) for name in names if name in given]
    if flags:
        raise click.UsageError(f"{reason}, so {' and '.join(flags)} cannot be given with it")


def _flag(name: str, value: object) -> str:
    return "--no-prefetch" if value is False else f"--{name.replace('_', '-')}"


def _budget(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Reject what is no budget; how much there is will be seen when the model is opened."""
    if text in (None, "auto", "none"):
        return text
    from moestream.experts.budgets import parse_budget

    try:
        parse_budget(text, 1 << 40)
    except BudgetError as error:
        raise click.BadParameter(f"{error}, auto or none", ctx, param) from None
    return text


def _budgets(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(_budget(ctx, param, part.strip()) or "auto" for part in text.split(","))


def _option(*names: str, **kwargs: Any) -> Callable[[Body], Body]:
    return click.option(*names, cls=Option, section="Streaming", **kwargs)


_AMOUNTS = (
    "Memory for the whole process: 6G, 640M (binary), 50% of all, auto (what is free), "
    "none. A model that fits is mapped and left to the system's page cache."
)
budget_option = _option(
    "--budget", callback=_budget, show_default="auto", metavar="AMOUNT", help=_AMOUNTS
)
_BUDGETS = _option(
    "--budget",
    "budgets",
    callback=_budgets,
    show_default="auto",
    metavar="AMOUNT,...",
    help=_AMOUNTS,
)
_HOW = (
    _option(
        "--policy",
        type=click.Choice([*POLICIES, "none"]),
        show_default="decay",
        metavar="NAME",
        help=f"Which experts stay in memory: {', '.join(POLICIES)}; none maps the whole file, as "
        "llama.cpp does.",
    ),
    _option(
        "--half-life",
        type=click.FloatRange(0.01, 1e9),
        callback=require_finite,
        show_default="32",
        metavar="N",
        help="Tokens in which a use of an expert loses half its weight; for decay and blend.",
    ),
    _option(
        "--window",
        type=click.IntRange(min=1),
        show_default="none",
        metavar="N",
        help="Forget uses more than this many tokens ago; for decay.",
    ),
    _option(
        "--layer-budget",
        type=click.Choice(["global", "uniform", "shallow", "adaptive"]),
        show_default="global",
        help="One cache for all layers; one a layer, of equal size; the first layers whole, the "
        "rest equal; or moved to the layers where it hits most.",
    ),
    _option(
        "--split",
        callback=split_callback,
        show_default="1",
        metavar="auto|SHARE",
        help="Keep only this share of an expert, so that more have a part in memory, and read the "
        "rest at each use; auto takes what should wait least on this disk.",
    ),
    _option(
        "--io",
        type=click.Choice(["auto", "madvise", "pread", "direct"]),
        show_default="auto",
        help="Read into the mapped file, into own memory, or there past the page cache; auto "
        "measures.",
    ),
    _option(
        "--pin",
        type=click.Choice(["auto", "mlock", "copy", "none"]),
        show_default="auto",
        help="Hold hot experts by locking the mapped file (madvise), by copies (pread, direct), "
        "or not.",
    ),
    _option(
        "--prefetch/--no-prefetch",
        default=None,
        show_default="prefetch",
        help="Read the experts that the next layer will probably want.",
    ),
    _option(
        "--prefetch-layers",
        type=click.IntRange(1, 16),
        show_default="1",
        metavar="N",
        help="How many layers ahead to predict.",
    ),
    _option(
        "--prefetch-mass",
        type=click.FloatRange(0, 1, min_open=True),
        callback=require_finite,
        show_default="none",
        metavar="P",
        help="Where the router is unsure, read more than a token uses, twice as many at most: "
        "until their probabilities reach P.",
    ),
    _option(
        "--profile",
        callback=parts_callback,
        shell_complete=complete_profile,
        show_default="none",
        metavar="NAME[:W],...",
        help="Read what this workload used most before the first token; several are mixed by "
        "weight. See moestream profile.",
    ),
)
_RECORDING = (
    _option(
        "--save-profile",
        callback=file_callback,
        shell_complete=complete_profile,
        metavar="NAME",
        help="Save what this run used, when it ends.",
    ),
    _option(
        "--trace",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Write every routing decision, for moestream simulate; .gz is compressed.",
    ),
)
