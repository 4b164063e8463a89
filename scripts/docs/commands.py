"""Write docs/commands.md: what every command says of itself with `--help`.

python scripts/docs/commands.py            # write it
python scripts/docs/commands.py --check    # fail if it is not what it should be
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from moestream.cli import cli
from moestream.cli.command import ALL_OPTIONS
from moestream.cli.options.streaming import streaming_help

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
WIDTH = 100
HEAD = """# Commands

What `--help-all` says, made by `scripts/docs/commands.py`. [options.md](options.md) explains
the options that need it.
"""


def commands(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Name and help of a command and of all below it."""
    context = click.Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **{key: value for key, value in cli.context_settings.items() if "width" not in key},
    )
    context.meta[ALL_OPTIONS] = True
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            assert below is not None
            yield from commands(below, f"{name} {child}")


def page() -> str:
    """The whole page."""
    told = list(commands(cli, "moestream"))
    links = [f"- [{name}](#{name.replace(' ', '-')})" for name, _ in told]
    formatter = click.HelpFormatter(width=WIDTH)
    streaming_help(formatter)
    told.append(("--help-streaming", formatter.getvalue()))
    sections = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in told]
    return "\n".join([HEAD, "\n".join(links), "", *sections])


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is not current: run scripts/docs/commands.py")
    print(json.dumps({"page": str(PAGE), "commands": text.count("\n## ")}))


if __name__ == "__main__":
    main()
