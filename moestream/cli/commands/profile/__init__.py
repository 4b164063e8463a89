"""``moestream profile``: what workloads used, saved and looked at; a file a few commands.

The files and folders are ``profiles``'s.
"""

import click

from moestream.cli.commands.profile.compare import diff, merge
from moestream.cli.commands.profile.load import load
from moestream.cli.commands.profile.save import save
from moestream.cli.commands.profile.show import list_profiles, rm, show
from moestream.cli.group import Group

__all__ = ["profile"]

EXAMPLES = """
moestream profile save italian demo -f articoli.txt --raw
moestream profile show italian
moestream profile diff italian code
moestream generate demo -p "Ciao!" --budget 500M --profile italian:2,code
"""


@click.group(cls=Group, examples=EXAMPLES)
def profile() -> None:
    """Save which experts a workload uses, and start warm with them."""


for _command in (save, load, list_profiles, show, diff, merge, rm):
    profile.add_command(_command)
