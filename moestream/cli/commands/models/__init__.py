"""``moestream models``: what models there are, which are here, and how they come and go."""

import click

from moestream.cli.commands.models.add import add
from moestream.cli.commands.models.info import info, path
from moestream.cli.commands.models.listing import list_models
from moestream.cli.commands.models.pull import pull
from moestream.cli.commands.models.remove import remove
from moestream.cli.commands.models.search import search
from moestream.cli.group import Group

EXAMPLES = """
moestream models list
moestream models search qwen3 coder
moestream models pull qwen3-30b-a3b-instruct-2507
moestream models pull hf:allenai/OLMoE-1B-7B-0924-Instruct-GGUF:Q4_K_M
moestream models info hf:unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF
"""


@click.group(cls=Group, examples=EXAMPLES)
def models() -> None:
    """List, find, fetch, look at and remove models.

    The models that have names are those of models.toml, which moestream comes with, and of a file
    of that name in your config folder. Any other on the hub is hf:ORG/REPO[:QUANT|FILE].
    """


for _command in (add, info, list_models, path, pull, remove, search):
    models.add_command(_command)
