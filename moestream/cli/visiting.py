"""Several machines looked at: from their names to what is told of them.

The same command runs twice: as a person starts it, and on each machine, started by the first.
"""

import json
import sys
from pathlib import Path

import click

from moestream import ui
from moestream.cli.command import EXIT_ERROR
from moestream.cli.reports.hosts import print_hosts
from moestream.ranks.launch import launched


def look_at_hosts(
    hosts: tuple[str, ...], *, model: str | None, port: int | None, as_json: bool
) -> None:
    """Look at machines, and tell what was found; the exit status is 1 if anything is wrong.

    Raises:
        RankError: one cannot be reached or joined.
    """
    from moestream.ranks.hosts import require_reachable, run_on_all

    if launched() is not None:
        _look_from_here(model)
        return
    with ui.working(f"looking at {', '.join(hosts)}"):
        require_reachable(hosts)
        command = ["moestream", "doctor", "--hosts", ",".join(hosts), "--json"]
        command += [] if model is None else ["--model", model]
        found = json.loads(run_on_all(hosts, port, command))
    ui.print_json(found) if as_json else print_hosts(found)
    if found["problems"]:
        click.get_current_context().exit(EXIT_ERROR)


def _look_from_here(model: str | None) -> None:
    """On each of them: the first asks and writes what it hears."""
    from moestream.ranks.joining import joined
    from moestream.ranks.probing import answer, probe

    ui.hide_lines("[ring]")
    link = joined()
    if link is None:
        sys.exit(0)
    if link.rank:
        answer(link, _here)
        return
    ui.print_json(probe(link, model, _here).to_dict())


def _here(model: str) -> Path:
    """The file of a model, if it is on this machine: nothing is fetched to be looked at.

    Raises:
        ModelNotFoundError: it is not.
    """
    from moestream.catalog import find_spec, locate, resolve
    from moestream.errors import ModelNotFoundError

    spec = find_spec(model)
    if spec is not None and locate(spec) is None:
        raise ModelNotFoundError(
            f"{model} is not here yet; fetch it with: moestream models pull {model}"
        )
    return resolve(model)
