"""The click class that groups of commands are made of: help in sections, and how errors end a run.

Owns which exit status an exception becomes. Knows no command.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from moestream import ui
from moestream.cli.command import (
    CONFIG_ERROR,
    EXIT_BROKEN_PIPE,
    EXIT_ERROR,
    interrupted_status,
    write_examples,
)
from moestream.errors import ConfigError, MoestreamError
from moestream.reasons import reason_of


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

    ``defaults`` is called before a command is run; it returns click's default map. ``sections`` are
    headings in the help with the names of commands under them; without any, all are under one.
    ``notes`` are titles of sections at the end of the help, with their rows. ``meant`` turns what
    was typed into what is called so here.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        sections: Mapping[str, Sequence[str]] | None = None,
        notes: Mapping[str, list[tuple[str, str]]] | None = None,
        defaults: Callable[["Group"], dict[str, Any]] | None = None,
        meant: Callable[[click.Context, list[str]], list[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.sections = sections or {}
        self.notes = notes or {}
        self.defaults = defaults
        self.meant = meant

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, with words of other programs turned into what they mean."""
        return super().parse_args(ctx, args if self.meant is None else self.meant(ctx, args))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        names = self.list_commands(ctx)
        width = max(map(len, names))  # the same in all sections
        for title, members in (self.sections or {"Commands": names}).items():
            told = {name: self.commands[name].get_short_help_str(limit=200) for name in members}
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in told.items()])

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
                try:
                    ctx.default_map = self.defaults(self)
                except ConfigError as error:  # each command says whether it minds
                    ctx.meta[CONFIG_ERROR] = error
            result = super().invoke(ctx)
            ui.flush()
        except MoestreamError as error:
            ui.error(str(error))
            ctx.exit(EXIT_ERROR)
        except MemoryError as error:
            ui.error(f"out of memory: {error}" if str(error) else "out of memory")
            ctx.exit(EXIT_ERROR)
        except KeyboardInterrupt as error:
            with suppress(OSError):  # a terminal that has been closed
                ui.note("interrupted")
            ctx.exit(interrupted_status(error))
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
    reason = reason_of(error)
    return f"{error.filename}: {reason}" if error.filename else reason
