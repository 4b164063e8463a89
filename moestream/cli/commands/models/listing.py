"""``moestream models list``: the models that have names, and those that were fetched."""

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.options.output import json_option

EXAMPLES = """
moestream models list
moestream models list --here
moestream models list --json | jq '.models[] | select(.verdict == "streams") | .name'
"""


@click.command("list", cls=Command, examples=EXAMPLES)
@option("--here", is_flag=True, help="Only those that are on this machine.")
@option("--all", "stores", is_flag=True, help="Those too that other programs have here.")
@json_option
def list_models(here: bool, stores: bool, as_json: bool) -> None:
    """List the models that have names, and those that were fetched without one.

    Says how large they are and how many parameters a token uses, which are here, and which would
    run in this machine's memory. With --all, also what Hugging Face's tools, llama.cpp, LM Studio
    and Ollama have here, which is run where it lies. --json has more, and moestream models info all
    of one.
    """
    from moestream.catalog import catalog, fetched_without_name, in_stores, user_catalog
    from moestream.cli.commands.models.figures import (
        bytes_told,
        catalogue_figures,
        count_told,
        verdict_told,
    )
    from moestream.streaming.memory import available_memory

    known, own, memory = dict(catalog()), user_catalog(), available_memory()
    known |= fetched_without_name(known)
    known |= in_stores(known) if stores else {}
    all_figures = [catalogue_figures(spec) for spec in known.values()]
    shown = [figures for figures in all_figures if figures.path is not None or not here]
    if as_json:
        entries = [
            {
                **figures.to_dict(memory),
                "description": known[figures.name].description,
                "licence": known[figures.name].licence,
                "source": known[figures.name].source,
                "yours": figures.name in own,
            }
            for figures in shown
        ]
        ui.print_json({"memory_bytes": memory.available_bytes, "models": entries})
        return
    rows = [
        (
            figures.name,
            bytes_told(figures.size_bytes),
            count_told(figures.active_parameters),
            "yes" if figures.path else "no",
            verdict_told(figures, memory).replace(" of experts in memory", " in memory"),
        )
        for figures in shown
    ]
    title = f"models ({ui.format_memory(memory.available_bytes)} of memory are free here)"
    ui.print_table(title, ("name", ">size", ">active", "here", "runs here"), rows)
