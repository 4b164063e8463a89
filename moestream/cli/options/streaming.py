"""The options that say where experts are kept and how they are read, and which go together.

Every command that runs a model uses these. What there is to choose is told in
``streaming.options``.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from moestream.cli.command import Body, apply, option
from moestream.cli.options.fields import field_options
from moestream.cli.options.profile import complete_profile, parts_callback
from moestream.cli.options.recording import RECORDING_OPTIONS, require_places
from moestream.errors import BudgetError
from moestream.ranks.launch import follows
from moestream.streaming.options import (
    POLICY_SETTINGS,
    STRATEGIES,
    StreamingOptions,
    by_strategy,
    knobs,
    read_knob,
)

_SECTION = "Memory"
_RECORDED = {"trace_guesses": "guesses", "trace_cache": "cache"}
"""Knobs that ``Recording`` takes, and its names for them."""


def streaming_options(body: Body) -> Body:
    """Add the options; ``body`` gets ``recording``, and what ``Engine.open`` takes.

    That is ``budget``, ``streaming`` and ``profile``; ``recording`` is for ``Recording``.
    ``streaming`` is None where nothing was asked for: the engine then streams only if it must.
    """

    @functools.wraps(body)
    def with_streaming(
        *args: Any,
        budget: str | None,
        trace: Path | None,
        save_profile: Path | None,
        **kwargs: Any,
    ) -> None:
        given = _take_given(kwargs)
        _check_shares(kwargs["hosts_share"], budget, given)
        recording: dict[str, Any] = {"trace": trace, "profile": save_profile}
        for knob, name in _RECORDED.items():
            recording[name] = given.pop(knob, None)
        require_places(recording)
        body(*args, recording=recording, **_opening(budget, given), **kwargs)

    return apply((budget_option, _SHARES, _VERIFY, *_HOW, *RECORDING_OPTIONS), with_streaming)


def streaming_comparison(body: Body) -> Body:
    """Add the same but for recording; of budgets there may be several, separated by commas.

    ``body`` gets ``openings``: what ``Engine.open`` takes, by the budget as it was given.
    """

    @functools.wraps(body)
    def with_openings(*args: Any, budgets: tuple[str, ...] | None, **kwargs: Any) -> None:
        given = _take_given(kwargs)
        if idle := next((knob for knob in _RECORDED if knob in given), None):
            raise click.UsageError(f"bench records nothing, so {_flag(idle)} does nothing")
        _check_shares(shares := kwargs["hosts_share"], budgets, given)
        of_none = ",".join(shares) or "auto"
        openings = {budget or of_none: _opening(budget, given) for budget in budgets or (None,)}
        body(*args, openings=openings, **kwargs)

    return apply((_BUDGETS, _SHARES, _VERIFY, *_HOW), with_openings)


def _check_shares(shares: tuple[str, ...], budget: object, given: Mapping[str, Any]) -> None:
    """Reject what a budget of each machine would take the place of.

    Raises:
        click.UsageError: there are both.
    """
    if shares and budget is not None:
        raise click.UsageError(
            "--hosts-share gives each machine its budget, so --budget does nothing; give one of "
            "them"
        )
    if shares and given.get("strategy") == "none":
        raise click.UsageError(
            "--strategy none streams nothing, so --hosts-share limits nothing; give one of them"
        )


def _take_given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, by field of ``StreamingOptions``; and ``strategy`` and ``profile``."""
    given = {name: kwargs.pop(name) for name in ("strategy", "io", "profile")}
    given["prefetch"] = False if kwargs.pop("no_prefetch") else None
    return {name: value for name, value in given.items() if value is not None} | dict(
        kwargs.pop("stream")
    )


def _opening(budget: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Engine.open`` is to be given."""
    if _is_mapped(budget, given):
        return {"budget": None, "streaming": None, "profile": None}
    changes = {n: value for n, value in given.items() if n not in ("strategy", "profile")}
    options = by_strategy(given.get("strategy", "decay"), **changes)
    _check(options, given)
    profile = None
    if "profile" in given and not follows():  # it is the first machine's, which tells the others
        from moestream.profiles.names import load_mixture

        profile = load_mixture(given["profile"])
    streaming = options if given else None
    return {"budget": budget or "auto", "streaming": streaming, "profile": profile}


def _is_mapped(budget: str | None, given: Mapping[str, Any]) -> bool:
    """Whether nothing is to be streamed.

    Raises:
        click.UsageError: and yet something is said of how.
    """
    if given.get("strategy") == "none":
        others = {name: value for name, value in given.items() if name != "strategy"}
        if budget not in (None, "none"):
            others = {"budget": budget, **others}
        _reject("--strategy none maps the file and streams nothing", others, tuple(others))
        return True
    if budget == "none":
        _reject("--budget none maps the file and streams nothing", given, tuple(given))
        return True
    return False


def _check(options: StreamingOptions, given: Mapping[str, Any]) -> None:
    """Reject what would have no effect beside something else.

    Raises:
        click.UsageError: such a combination; the message names both.
    """
    io, pin = options.io, options.pin
    if io == "madvise" and pin == "copy":
        raise click.UsageError(
            "--io madvise leaves experts in the mapped file, so --stream pin=copy does nothing; "
            "pin by mlock, or read by pread or direct"
        )
    if io in ("pread", "direct") and pin in ("mlock", "none"):
        raise click.UsageError(
            f"--io {io} reads experts into memory of its own, where all are pinned by copy; "
            f"--stream pin={pin} goes with --io madvise"
        )
    if pin == "none":
        names = ("strategy", "policy", "half_life", "window", "layer_budget", "split")
        _reject("--stream pin=none keeps no expert", given, names)
    if options.split != 1 and (io == "madvise" or pin == "mlock"):
        flag = "--io madvise" if io == "madvise" else "--stream pin=mlock"
        raise click.UsageError(
            f"{flag} leaves experts in the mapped file, so a split has no parts to keep; "
            "read by pread or direct"
        )
    if not options.prefetch:
        _reject("--no-prefetch reads nothing ahead", given, ("prefetch_layers", "prefetch_mass"))
    taken = POLICY_SETTINGS.get(options.policy, ())
    idle = tuple(name for name in ("half_life", "window") if name not in taken)
    _reject(f"policy {options.policy} has no use for it", given, idle)


def _reject(reason: str, given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    flags = [_flag(name) for name in names if name in given]
    if flags:
        raise click.UsageError(f"{reason}, so {' and '.join(flags)} cannot be given with it")


def _flag(name: str) -> str:
    flag = name.replace("_", "-")
    if flag in knobs():
        return f"--stream {flag}"
    return "--no-prefetch" if name == "prefetch" else f"--{flag}"


def _budget(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Reject what is no budget; how much there is will be seen when the model is opened."""
    if text in (None, "auto", "none"):
        return text
    from moestream.streaming.budget import parse_memory

    try:
        parse_memory(text, 1 << 40)
    except BudgetError as error:
        raise click.BadParameter(f"{error}, auto or none", ctx, param) from None
    return text


def _budgets(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(_budget(ctx, param, part.strip()) or "auto" for part in text.split(","))


def _shares(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    shares = _budgets(ctx, param, text) or ()
    if "none" in shares:
        raise click.BadParameter(
            "none is no share: layers are divided by the memory of each machine; give it an "
            "amount, 50% or auto",
            ctx,
            param,
        )
    return shares


def _read_knobs(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    try:
        return tuple(map(read_knob, texts))
    except ValueError as error:
        raise click.BadParameter(f"{error} (see --help-streaming)", ctx, param) from None


def _help_streaming(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    formatter = ctx.make_formatter()
    streaming_help(formatter)
    click.echo(formatter.getvalue().rstrip("\n"), color=ctx.color)
    ctx.exit()


def streaming_help(formatter: click.HelpFormatter) -> None:
    """Write the keys of ``--stream``, and the strategies."""
    formatter.write_text("--stream KEY=VALUE changes one part of a strategy; it may be repeated.")
    with formatter.section("Keys"):
        formatter.write_dl([_knob_row(key) for key in knobs()])
    with formatter.section("Strategies"):
        rows = [(name, _changes(name)) for name in STRATEGIES]
        formatter.write_dl([*rows, ("none", "the whole file is mapped, as by llama.cpp")])


def _knob_row(key: str) -> tuple[str, str]:
    each = knobs()[key]
    takes = each.option
    values = f" Values: {', '.join(takes.choices)}." if takes.choices else ""
    told = f"  [default: {each.told}]" if each.told else ""
    return f"{key}={takes.metavar or 'NAME'}", takes.help + values + told


def _changes(strategy: str) -> str:
    changes = (f"{name.replace('_', '-')}={v}" for name, v in STRATEGIES[strategy].items())
    return " ".join(changes) or "the defaults"


def _option(*names: str, **kwargs: Any) -> Callable[[Body], Body]:
    return option(*names, section=_SECTION, **kwargs)


_AMOUNTS = (
    "Memory for the whole process: 6G, 640M, 50%, auto (what is free) or none (no limit).  "
    "[default: auto]"
)
budget_option = _option("--budget", callback=_budget, metavar="AMOUNT", help=_AMOUNTS)
_SHARES = _option(
    "--hosts-share",
    callback=_shares,
    metavar="AMOUNT,...",
    rare=True,
    help="The budget of each machine, of several that mlx.launch starts; see docs/machines.md.",
)
_VERIFY = _option(
    "--verify",
    type=click.Choice(["header", "full"]),
    default="header",
    rare=True,
    help="What several machines compare of their copies of the file: full is every byte that each "
    "of them reads.",
)
_BUDGETS = _option("--budget", "budgets", callback=_budgets, metavar="AMOUNT,...", help=_AMOUNTS)
_HOW = (
    _option(
        "--strategy",
        type=click.Choice([*STRATEGIES, "none"]),
        help="Which experts stay in memory; none leaves it to the system.  [default: decay]",
    ),
    *field_options(StreamingOptions, _SECTION, ("io",), unset=True),
    _option("--no-prefetch", is_flag=True, help="Read nothing ahead."),
    _option(
        "--profile",
        callback=parts_callback,
        shell_complete=complete_profile,
        metavar="NAME[:W],...",
        help="Begin with what a saved workload used in memory; several are mixed by weight.",
    ),
    _option(
        "--stream",
        multiple=True,
        callback=_read_knobs,
        metavar="KEY=VALUE",
        help="Change one part of the strategy; see --help-streaming.",
    ),
    _option(
        "--help-streaming",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_help_streaming,
        help="List the keys of --stream and the strategies.",
    ),
)
