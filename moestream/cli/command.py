"""The click classes that the commands are made of: help in sections, and how errors end a run.

Owns exit statuses: 0, 1 for an error that was foreseen, 2 for usage (click's own), 130 after
Ctrl-C and 141 when the reader of our output has gone. Knows no command.
"""

import difflib
from typing import Any

import click

from moestream import ui
from moestream.errors import MoestreamError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_MAX_COLUMN = 28


class Option(click.Option):
    """An option that is listed under a heading of its own in ``--help``."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command whose help has sections of options, and examples at the end."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

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


class Group(click.Group):
    """A group that suggests the command that was meant, and turns errors into exit statuses."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line, as they are."""
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
