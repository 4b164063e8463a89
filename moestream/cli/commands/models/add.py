"""``moestream models add``: give a model a name of one's own."""

from pathlib import Path
from typing import Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.options.output import json_option
from moestream.cli.options.preset import preset_options
from moestream.errors import ModelNotFoundError
from moestream.folders import link_told

EXAMPLES = """
moestream models add mine ~/models/my-model-q4_k_m.gguf
moestream models add brief --from demo -sys "Answer in one sentence." --temp 0.2 -c 4096
moestream models add tongyi hf:bartowski/Alibaba-NLP_Tongyi-DeepResearch-30B-A3B-GGUF:Q4_K_M
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("name")
@click.argument("source", required=False, metavar="[FILE|hf:ORG/REPO[:QUANT|FILE]]")
@option("--from", "base", metavar="NAME", help="Build it on another model, instead of a source.")
@option("--description", default="", metavar="TEXT", help="One line for the list.")
@option("--licence", metavar="NAME", help="As in Apache-2.0.")
@json_option
@preset_options
def add(
    name: str,
    source: str | None,
    base: str | None,
    description: str,
    licence: str | None,
    as_json: bool,
    preset: dict[str, Any],
) -> None:
    """Give a file, a model on the hub, or a way to use another model, a name.

    The entry is written to models.toml in your config folder, beside those that moestream comes
    with; one of the same name takes the other's place. What a preset says counts wherever you say
    nothing else.
    """
    if (source is None) == (base is None):
        raise click.UsageError("give a source, or --from with the name of a model: one of the two")
    from moestream.catalog import add_entry, locate
    from moestream.catalog.entries import shipped_catalog, user_file
    from moestream.hub import is_reference
    from moestream.hub.stores import lmstudio, ollama

    values: dict[str, Any] = {"description": description} if description or source else {}
    if licence:
        values["licence"] = licence
    if base is not None:
        values["from"] = base
    elif source is not None:
        if is_reference(source):
            values |= _hub_values(source)
        elif source.startswith((ollama.PREFIX, lmstudio.PREFIX)):
            values |= {"source": source}
        else:
            values |= _file_values(source)
    spec = add_entry(name, values | preset)
    if as_json:
        ui.print_json({"model": name, "source": spec.source, "file": str(user_file())})
        return
    ui.note(f"added {name} to {user_file()}")
    if name in shipped_catalog():
        ui.note(
            f"it takes the place of the {name} that moestream comes with; moestream models rm "
            f"{name} puts that back"
        )
    if spec.kind == "hf" and locate(spec) is None:
        ui.note(f"fetch it with: moestream models pull {name}")


def _hub_values(source: str) -> dict[str, str | int]:
    from moestream.hub import parse_reference

    return {"source": str(parse_reference(source))}


def _file_values(source: str) -> dict[str, str | int]:
    """Look into the file, so that the list need not."""
    from moestream.cli.commands.models.figures import file_figures

    path = Path(source).expanduser().absolute()
    if (told := link_told(path)) is not None:
        raise ModelNotFoundError(told)
    if not path.is_file():
        raise ModelNotFoundError(
            f"{path} is no file; expected a .gguf file, or a model on the hub as hf:ORG/REPO:QUANT"
        )
    figures = file_figures(path.stem, path)
    known = {"architecture": figures.architecture, "size_bytes": figures.size_bytes}
    return {"source": f"file:{path}", **{key: value for key, value in known.items() if value}}
