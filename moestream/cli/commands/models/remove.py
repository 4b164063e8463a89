"""``moestream models rm``: delete a model's files, and the user's own entry of it."""

import sys
from pathlib import Path

import click

from moestream import ui
from moestream.cli.command import EXIT_ERROR, Command, option
from moestream.cli.options.model_argument import complete_name
from moestream.cli.options.output import json_option
from moestream.errors import ModelNotFoundError

EXAMPLES = """
moestream models rm qwen3-coder-30b-a3b
moestream models rm hf:bartowski/Qwen_Qwen3-30B-A3B-GGUF:IQ4_XS --yes
"""


@click.command("rm", cls=Command, examples=EXAMPLES)
@click.argument("model", shell_complete=complete_name)
@option("-y", "--yes", is_flag=True, shared=False, help="Do not ask.")
@json_option
@click.pass_context
def remove(ctx: click.Context, model: str, yes: bool, as_json: bool) -> None:
    """Delete what was fetched or built of a model.

    An entry that you added is removed too; a file that you added by its path is never deleted.
    """
    from moestream.catalog import find_spec, locate, remove_entry, user_catalog
    from moestream.hub.local import occupied_bytes

    spec = find_spec(model)
    if spec is None:
        raise ModelNotFoundError(
            f"no model is called {model!r}; moestream models list --here shows those that are here"
        )
    own = spec.name in user_catalog()
    kind = "" if spec.base is not None else spec.kind  # the files are another entry's
    files = _files(kind, spec.source)
    if not files and not own:
        _delete(kind, spec.source)  # a lock, an empty folder
        where = locate(spec)
        kept = "" if where is None else f"; {where} is another program's, and stays"
        raise ModelNotFoundError(f"nothing of {model} is here{kept}")
    freed = sum(map(occupied_bytes, files))
    if not yes and not _agreed(_question(model, files, freed, own)):
        ui.note("nothing was removed")
        ctx.exit(EXIT_ERROR)
    _delete(kind, spec.source)
    if own:
        remove_entry(spec.name)
    if as_json:
        paths = [str(file) for file in files]
        ui.print_json({"model": model, "files": paths, "freed_bytes": freed, "entry": own})
    else:
        ui.note(f"removed {model}, {ui.format_bytes(freed)}")


def _files(kind: str, source: str) -> list[Path]:
    from moestream import demo, hub
    from moestream.hub.local import model_paths

    if kind == "hf":
        return model_paths(hub.parse_reference(source))
    return demo.demo_files() if kind == "recipe" else []


def _delete(kind: str, source: str) -> None:
    from moestream import demo, hub

    if kind == "hf":
        hub.remove(hub.parse_reference(source))
    elif kind == "recipe":
        demo.remove_demo()


def _question(model: str, files: list[Path], freed: int, own: bool) -> str:
    parts = []
    if files:
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        parts.append(f"delete {count} of {model} ({ui.format_bytes(freed)})")
    if own:
        parts.append(f"remove your entry {model}")
    text = " and ".join(parts)
    return text[0].upper() + text[1:] + "?"


def _agreed(question: str) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to answer on; pass --yes")
    return click.confirm(ui.printable(question), err=True)
