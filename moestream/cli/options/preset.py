"""What a preset says of how a model is used, as options of ``models add``."""

import functools
from typing import Any

import click
from click.core import ParameterSource

from moestream.cli.command import Body, apply, option
from moestream.cli.options.fields import field_options
from moestream.cli.options.profile import complete_profile, name_callback
from moestream.cli.options.prompt import system_options
from moestream.declare import declared
from moestream.engine.loading import EngineOptions
from moestream.engine.options import SamplingParams

_SAMPLING = {n: each for n, each in declared(SamplingParams).items() if not each.option.many}


def preset_options(body: Body) -> Body:
    """Add the options; ``body`` gets one ``preset``, as an entry of models.toml has it.

    What the environment and config.toml say is no part of it: that counts anyway.
    """

    @functools.wraps(body)
    def with_preset(
        *args: Any,
        system_prompt: str | None,
        context_length: int | None,
        profile: str | None,
        **kwargs: Any,
    ) -> None:
        ctx = click.get_current_context()
        values = {each.flag: kwargs.pop(name) for name, each in _SAMPLING.items()}
        given = {
            each.flag: _plain(values[each.flag])
            for name, each in _SAMPLING.items()
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        found = {
            "system_prompt": system_prompt,
            "sampling": given,
            "context": context_length,
            "profile": profile,
        }
        body(*args, preset={name: each for name, each in found.items() if each}, **kwargs)

    shown = field_options(EngineOptions, "Preset", ("context_length",))
    sampling = field_options(SamplingParams, "Preset", tuple(_SAMPLING), unset=True)
    return apply((*shown, _PROFILE, *sampling), system_options(with_preset))


_PROFILE = option(
    "--profile",
    section="Preset",
    metavar="NAME",
    callback=lambda ctx, param, value: value and name_callback(ctx, param, value),
    shell_complete=complete_profile,
    help="Begin with a profile where experts are streamed.",
)


def _plain(value: Any) -> Any:
    return ";".join(value) if isinstance(value, tuple) else value
