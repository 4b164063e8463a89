"""``moestream cache``: what is kept of prompts on disk, looked at and removed."""

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.group import Group
from moestream.cli.options.output import json_option
from moestream.errors import ModelNotFoundError

EXAMPLES = """
moestream cache list
moestream cache rm demo-1.gguf
moestream cache prune 2G
"""


@click.group(cls=Group, examples=EXAMPLES)
def cache() -> None:
    """See and remove what chat and serve keep of prompts on disk."""


@cache.command("list", cls=Command)
@json_option
def list_stored(as_json: bool) -> None:
    """List the models that something is kept of, the last used first."""
    from dataclasses import asdict

    from moestream.prompt_cache import folder_of_all, stored_models

    found = stored_models()
    if as_json:
        models = [asdict(each) for each in found]
        ui.print_json({"folder": str(folder_of_all()), "models": models})
        return
    if not found:
        ui.note("nothing is kept")
        return
    rows = [(each.title, f"{each.n_tokens:,}", ui.format_memory(each.n_bytes)) for each in found]
    ui.print_table("", ("model", "tokens", "size"), rows)


@cache.command("rm", cls=Command)
@click.argument("model", required=False)
@option("--all", "everything", is_flag=True, help="Remove all that is kept, of every model.")
@json_option
def rm(model: str | None, everything: bool, as_json: bool) -> None:
    """Remove what is kept of MODEL, as list calls it."""
    from moestream.prompt_cache import stored_models
    from moestream.prompt_cache.files import remove

    if (model is None) != everything:
        raise click.UsageError("pass a model, as moestream cache list calls it, or --all")
    chosen = [each for each in stored_models() if everything or model in (each.title, each.model)]
    if not chosen and not everything:
        raise ModelNotFoundError(
            f"nothing is kept of {model!r}; moestream cache list shows what is"
        )
    freed = sum(remove(each.model) for each in chosen)
    if as_json:
        ui.print_json({"removed": [each.title for each in chosen], "freed_bytes": freed})
    else:
        ui.note(f"removed {ui.format_memory(freed)}")


@cache.command("prune", cls=Command)
@click.argument("size")
@json_option
def prune(size: str, as_json: bool) -> None:
    """Remove what was not used for longest, until no more than SIZE is left."""
    from moestream.prompt_cache.files import prune as prune_files
    from moestream.streaming.budget import parse_memory

    left = prune_files(parse_memory(size, 0))
    if as_json:
        ui.print_json({"left_bytes": left})
    else:
        ui.note(f"{ui.format_memory(left)} left")
