"""``moestream completion``: what makes a shell complete commands, options and model names."""

import click
from click.shell_completion import get_completion_class

from moestream import ui
from moestream.cli.command import Command

EXAMPLES = """
moestream completion bash >> ~/.bashrc
moestream completion zsh >> ~/.zshrc
moestream completion fish > ~/.config/fish/completions/moestream.fish
"""


@click.command(cls=Command, examples=EXAMPLES, needs_config=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete moestream's commands.

    It completes commands, options, their values and the names of models. Bash must be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the choice above has only shells that click knows
    root = ctx.find_root()
    script = kind(root.command, {}, "moestream", "_MOESTREAM_COMPLETE")
    ui.write_text(script.source_template % script.source_vars())
