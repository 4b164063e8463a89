"""The command line: one file a command, and here the group that they belong to.

A command's module is imported when the command is asked for, and what takes long to import (NumPy,
the tokenizer) inside the commands, so that ``--help`` and a mistyped option answer at once.
"""

import gc
import itertools
import sys
from collections.abc import Sequence

import click

from moestream import ui
from moestream.cli.command import EXIT_ERROR
from moestream.cli.commands.version import version_option
from moestream.cli.config_file import load_defaults
from moestream.cli.group import CommandModules, Group
from moestream.cli.habits import meant
from moestream.ranks.launch import launched
from moestream.terminal.interrupt import terminate_as_interrupt

__all__ = ["main"]

SECTIONS = {
    "Run a model": ("chat", "generate", "serve", "bench"),
    "Get and look at models": ("models", "inspect", "plan"),
    "Experts": ("profile", "simulate"),
    "This machine": ("doctor", "cache", "completion"),
}
"""The commands; each is in the module of its name."""
EXAMPLES = """
moestream chat demo
moestream generate demo -p "What is the capital of Italy?"
moestream models list
moestream simulate run.route.csv.gz
moestream plan qwen3-30b-a3b-instruct-2507 --memory 16G
moestream bench demo --budget 500M,700M
"""
NOTES = {
    "Defaults": [
        ("MOESTREAM_OPTION", "In the environment, the default of --option in every command."),
        ("MOESTREAM_COMMAND_OPTION", "The same for one command."),
        ("config.toml", "A file of defaults; moestream doctor says where it is looked for."),
    ],
    "Words of other programs": [
        ("run MODEL [PROMPT]", "Is chat, or with a prompt generate."),
        ("ls, pull, show, rm", "Are of moestream models."),
        ("help, version", "Are --help and --version."),
    ],
    "Exit status": [
        ("0", "Done."),
        ("1", "It failed; one line on standard error says why."),
        ("2", "The command line, or a default, makes no sense."),
        ("129, 143", "Ended by SIGHUP or SIGTERM, with all that Ctrl-C saves."),
        ("130", "Interrupted with Ctrl-C."),
        ("141", "Whoever read the output has gone."),
    ],
}


def _meant(ctx: click.Context, args: list[str]) -> list[str]:
    """What was typed, with words of other programs turned into what they mean here."""

    def is_prompt(rest: Sequence[str]) -> bool:
        command = cli.commands["generate"]
        try:
            parser = command.make_parser(click.Context(command, parent=ctx))
            values, _, _ = parser.parse_args(list(rest))
        except click.UsageError:  # an option of chat's
            return False
        given = (values.get(name) for name in ("words", "prompt", "file"))
        return any(isinstance(value, str | tuple) and value for value in given)

    return meant(args, is_prompt)


@click.group(
    cls=Group,
    examples=EXAMPLES,
    sections=SECTIONS,
    notes=NOTES,
    defaults=load_defaults,
    meant=_meant,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@version_option
def cli() -> None:
    """Run Mixture-of-Experts language models from GGUF files larger than memory."""


cli.commands = CommandModules(f"{__name__}.commands", itertools.chain(*SECTIONS.values()))


def main() -> None:
    """Run the command line of this process and exit."""
    ui.prepare()
    terminate_as_interrupt()
    ui.hear_warnings()
    # A vocabulary is hundreds of thousands of objects that live on: to look for cycles among them
    # every few hundred allocations takes a tenth of the time to the first token.
    gc.set_threshold(300_000, 10, 10)
    try:
        cli(prog_name="moestream")
    except SystemExit as end:
        ui.log_end(end.code)
        if launched() is not None:
            from moestream.ranks.joining import end_process

            end_process(end.code)
        raise
    except Exception as error:
        ui.log_crash()
        ui.error(
            f"this should not have happened: {type(error).__name__}: {error}; please report it, "
            "with the log that --log-file FILE writes"
        )
        if launched() is not None:
            from moestream.ranks.joining import end_process

            end_process(EXIT_ERROR)
        sys.exit(EXIT_ERROR)
