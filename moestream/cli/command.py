"""The click classes that the commands are made of: help in sections, and how errors end a run.

Owns exit statuses: 0, 1 for an error that was foreseen, 2 for usage (click's own), 130 after
Ctrl-C and 141 when the reader of our output has gone; and where an option's value comes from when
it is not given: the environment, then the config file. Knows no command.
"""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from moestream import __version__, ui
from moestream.errors import MoestreamError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_MAX_COLUMN = 28


class Option(click.Option):
    """An option that is listed under a heading of its own in ``--help``.

    Where it is not given, ``MOESTREAM_COMMAND_NAME`` and ``MOESTREAM_NAME`` in the environment are
    looked at, with the name of its first long flag; ``shared=False`` leaves out the second, for an
    option that means something else than its namesakes.
    """

    def __init__(
        self, *args: Any, section: str = "Options", shared: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
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


def _log_option() -> Option:
    return Option(
        ["--log-file"],
        section="Other",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        expose_value=False,
        callback=_start_log,
        help="Write all messages, with times, to the end of this file too.",
    )


class Command(click.Command):
    """A command whose help has sections of options, and examples at the end."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(_log_option())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options by section, in the order in which sections first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        names = [name for rows in sections.values() for name, _ in rows]
        width = min(max(map(len, names)), _MAX_COLUMN)  # the same in all sections
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in rows], _MAX_COLUMN)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line, as they are."""
        write_examples(self.examples, formatter)


class CommandModules(MutableMapping[str, click.Command]):
    """The commands of a group by name, each imported from its module when it is asked for."""

    def __init__(self, package: str, names: Iterable[str]) -> None:
        self._package = package
        self._found: dict[str, click.Command | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> click.Command:
        found = self._found[name]
        if found is None:
            found = getattr(import_module(f"{self._package}.{name}"), name)
            self._found[name] = found
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Group(click.Group):
    """A group that suggests the command that was meant, and turns errors into exit statuses.

    ``defaults`` is called before a command is run; it returns click's default map. ``notes`` are
    titles of sections at the end of the help, with their rows.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        notes: Mapping[str, list[tuple[str, str]]] | None = None,
        defaults: Callable[["Group"], dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.notes = notes or {}
        self.defaults = defaults

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes, and the examples, one a line, as they are."""
        for title, rows in self.notes.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        write_examples(self.examples, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the ones that are spelt alike."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, self.commands)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"see {ctx.command_path} --help"
            )
            raise click.UsageError(f"no command is called {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the library raises ends here as one line and an exit status."""
        try:
            if self.defaults is not None:
                ctx.default_map = self.defaults(self)
            result = super().invoke(ctx)
            ui.flush()
        except MoestreamError as error:
            ui.error(str(error))
            ctx.exit(EXIT_ERROR)
        except MemoryError as error:
            ui.error(f"out of memory: {error}" if str(error) else "out of memory")
            ctx.exit(EXIT_ERROR)
        except KeyboardInterrupt:
            ui.note("interrupted")
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            ui.abandon_output()
            ctx.exit(EXIT_BROKEN_PIPE)
        except OSError as error:
            ui.abandon_output()
            ui.error(describe_os_error(error))
            ctx.exit(EXIT_ERROR)
        return result


def describe_os_error(error: OSError) -> str:
    """Say what the system refused, in the order in which our own errors say it."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Write a section of examples, without wrapping the lines."""
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")
