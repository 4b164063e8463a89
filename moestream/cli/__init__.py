"""The command line: one file a command, and here the group that they belong to.

Everything that takes long to import (NumPy, the tokenizer) is imported inside the commands, so
that ``--help`` and a mistyped option answer at once.
"""

import gc

import click

from moestream import __version__, ui
from moestream.cli.bench import bench
from moestream.cli.command import Group
from moestream.cli.generate import generate
from moestream.cli.inspect import inspect
from moestream.cli.plan import plan
from moestream.cli.simulate import simulate

__all__ = ["main"]

EXAMPLES = """
moestream generate demo -p "What is the capital of Italy?"
moestream inspect qwen3-30b-a3b-q4_k_m.gguf
moestream simulate run.route.csv.gz
moestream plan demo --memory 1G
moestream bench demo --budget 500M,700M
"""


@click.group(
    cls=Group,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="moestream")
def cli() -> None:
    """Run Mixture-of-Experts language models from GGUF files larger than memory."""


for _command in (bench, generate, inspect, plan, simulate):
    cli.add_command(_command)


def main() -> None:
    """Run the command line of this process and exit."""
    ui.prepare()
    # A vocabulary is hundreds of thousands of objects that live on: to look for cycles among them
    # every few hundred allocations takes a tenth of the time to the first token.
    gc.set_threshold(300_000, 10, 10)
    cli(prog_name="moestream")
