"""The click classes that commands and options are made of: help in sections, and defaults.

Owns where an option's value comes from when it is not given: the environment, then the config
file; and the exit statuses. Knows no command.
"""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from moestream import __version__, ui
from moestream.ranks.launch import follows
from moestream.terminal.interrupt import Terminated

EXIT_ERROR = 1  # what was foreseen; click's own 2 is for usage
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it

Body = Callable[..., None]


def interrupted_status(error: KeyboardInterrupt) -> int:
    """The exit status of a run that a signal ended, as shells report it."""
    return 128 + (error.signum if isinstance(error, Terminated) else signal.SIGINT)


_MAX_COLUMN = 28
ALL_OPTIONS = "moestream.help_all"
"""In a context's ``meta`` where rare options are to be listed too."""
CONFIG_ERROR = "moestream.config_error"
"""In a context's ``meta`` what is wrong with the user's config file."""


class Option(click.Option):
    """An option that is listed under a heading of its own in ``--help``.

    ``rare`` ones are listed by ``--help-all`` alone.

    Where it is not given, ``MOESTREAM_COMMAND_NAME`` and ``MOESTREAM_NAME`` in the environment are
    looked at, with the name of its first long flag; ``shared=False`` leaves out the second, for an
    option that means something else than its namesakes.
    """

    def __init__(
        self,
        *args: Any,
        section: str = "Options",
        shared: bool = True,
        rare: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.rare = rare
        self.shared = shared

    @property
    def flag(self) -> str:
        """The first long flag, without its dashes."""
        return next((flag for flag in self.opts if flag.startswith("--")), self.opts[0]).lstrip("-")

    def environment_names(self, ctx: click.Context) -> list[str]:
        """The variables that give a value, the first that is set wins."""
        command = ctx.command_path.split()[1:]
        scopes = [command, []] if self.shared else [command]
        return [
            "_".join(["MOESTREAM", *scope, self.flag]).replace("-", "_").upper() for scope in scopes
        ]

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the first variable that is set and not empty."""
        values = (os.environ.get(name) for name in self.environment_names(ctx))
        return next((value for value in values if value), None)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert and check a value; say where a wrong one came from, if not the command line."""
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as error:
            message = re.sub(r"is not a valid (\w+)(?: range)?\.", _expected, error.message)
            origin = self._origin(ctx)
            if origin:
                message += f" ({origin})"
            raise click.BadParameter(message, ctx, self, error.param_hint) from None

    def _origin(self, ctx: click.Context) -> str | None:
        """Where the value came from, if not from the command line."""
        source = ctx.get_parameter_source(self.name) if self.name else None
        if source is click.core.ParameterSource.ENVIRONMENT:
            names = [name for name in self.environment_names(ctx) if os.environ.get(name)]
            return f"from {names[0]} in the environment"
        return "from config.toml" if source is click.core.ParameterSource.DEFAULT_MAP else None


def _expected(match: re.Match[str]) -> str:
    """Say what click expects of a number in words that are not its own."""
    kinds = {"integer": "a whole number", "float": "a number"}
    return f"is not {kinds[match[1]]}." if match[1] in kinds else match[0]


def _start_log(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is not None and not ctx.resilient_parsing:
        log = ui.log_to(path)
        log.info("moestream %s: %s", __version__, shlex.join(sys.argv[1:]))


def option(*names: str, **kwargs: Any) -> Callable[[Body], Body]:
    """Decorate a command with an ``Option``; a default that is given here is shown in the help."""
    kwargs.setdefault("show_default", kwargs.get("default") not in (None, ""))
    return click.option(*names, cls=Option, **kwargs)


def file_option(*names: str, dash: bool = False, **kwargs: Any) -> Callable[[Body], Body]:
    """Decorate a command with an option that takes a file; ``dash``: or standard input.

    It is the first machine's, of several.
    """
    there = click.Path(exists=not follows(), dir_okay=False, allow_dash=dash, path_type=Path)
    return option(*names, type=there, **kwargs)


def apply(options: Sequence[Callable[[Body], Body]], body: Body) -> Body:
    """Decorate ``body`` with options; they are listed in this order in its help."""
    for each in reversed(options):
        body = each(body)
    return body


def suggesting(parse: Callable[[click.Context, list[str]], list[str]]) -> Callable[..., list[str]]:
    """Have a command suggest options that are spelt alike: click compares their dashes too."""

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return parse(ctx, args)
        except click.NoSuchOption as error:
            flags = [flag for each in ctx.command.params for flag in each.opts]
            names = {flag.lstrip("-"): flag for flag in flags if flag.startswith("--")}
            close = get_close_matches(error.option_name.lstrip("-"), names)
            meant = [names[name] for name in close]
            raise click.NoSuchOption(error.option_name, error.message, meant, error.ctx) from None

    return parse_args


def _log_option() -> Option:
    return Option(
        ["--log-file"],
        section="Other",
        rare=True,
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        expose_value=False,
        callback=_start_log,
        help="Write all messages, with times, to the end of this file too.",
    )


def be_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Be quiet from the start, whatever the order of options."""
    if value and not ctx.resilient_parsing:
        ui.be_quiet()
    return value


def _help_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[ALL_OPTIONS] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _acting_flag(*flags: str, callback: Callable[..., Any], help: str) -> Option:
    """A flag of any command, which knows nothing of it: the callback does what is to be done."""
    acts: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False}
    return Option(flags, section="Other", callback=callback, help=help, **acts)


_QUIET = _acting_flag(
    "-q", "--quiet", callback=be_quiet, help="Write nothing to standard error but errors."
)
_HELP_ALL = _acting_flag(
    "--help-all", callback=_help_all, help="List the options that are seldom needed too."
)


class Command(click.Command):
    """A command whose help has sections of options, and examples at the end.

    Every one takes ``--log-file``, and ``--quiet`` where it has none of its own. With
    ``needs_config=False`` it runs, without defaults, where the user's config file is wrong.
    """

    def __init__(
        self, *args: Any, examples: str = "", needs_config: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.needs_config = needs_config
        if not any("--quiet" in param.opts for param in self.params):
            self.params.append(_QUIET)
        self.params.append(_log_option())
        if any(getattr(param, "rare", False) for param in self.params):
            self.params.append(_HELP_ALL)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; not with defaults that cannot be read, but for those that help."""
        rest = suggesting(super().parse_args)(ctx, args)
        if self.needs_config and CONFIG_ERROR in ctx.meta:
            raise ctx.meta[CONFIG_ERROR]
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ui.hear_library()
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options by section, in the order in which sections first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            hidden = getattr(param, "rare", False) and ALL_OPTIONS not in ctx.meta
            if isinstance(param, click.Option) and record is not None and not hidden:
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        names = [name for rows in sections.values() for name, _ in rows]
        width = min(max(map(len, names)), _MAX_COLUMN)  # the same in all sections
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in rows], _MAX_COLUMN)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line, as they are."""
        write_examples(self.examples, formatter)


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Write a section of examples, without wrapping the lines."""
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")
