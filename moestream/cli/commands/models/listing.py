"""``moestream models list``: the models that have names, and those that were fetched."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.commands.models.measured import measure_option, measured_before, measured_now
from moestream.cli.options.memory import memory_of, memory_option
from moestream.cli.options.output import json_option

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec
    from moestream.cli.commands.models.figures import Figures
    from moestream.forecast.estimate import Estimate, Measured

    Row = tuple[Figures, Estimate]

EXAMPLES = """
moestream models list
moestream models list --memory 16G
moestream models list --here
moestream models list --json | jq '.models[] | select(.verdict == "streams") | .name'
"""
_ENOUGH_SHARE = 0.5
_ENOUGH_TPS = 1.0
"""Of a model that is streamed and recommended: this part of its experts in memory, this fast."""


@click.command("list", cls=Command, examples=EXAMPLES)
@memory_option
@measure_option
@option("--here", is_flag=True, help="Only those that are on this machine.")
@option("--all", "stores", is_flag=True, help="Those too that other programs have here.")
@json_option
def list_models(memory: int | None, measure: bool, here: bool, stores: bool, as_json: bool) -> None:
    """List the models that have names, and those that were fetched without one.

    Says how large they are and how many parameters a token uses, which are here, which would run in
    this machine's memory and how fast, as plan has it; * marks those to begin with. With --all,
    also what Hugging Face's tools, llama.cpp, LM Studio and Ollama have here, which is run where it
    lies. --json has more, and moestream models info all of one.
    """
    from moestream.catalog import catalog, fetched_without_name, in_stores
    from moestream.cli.commands.models.figures import catalogue_figures

    known, limit = dict(catalog()), memory_of(memory)
    known |= fetched_without_name(known)
    known |= in_stores(known) if stores else {}
    measured = _measured(known.values(), measure, as_json)
    all_figures = [catalogue_figures(spec) for spec in known.values()]
    all_rows = [(figures, figures.estimate(limit, measured)) for figures in all_figures]
    marked = _recommended(all_rows)
    rows = [row for row in all_rows if row[0].path is not None or not here]
    if as_json:
        models = _as_json(rows, known, marked)
        ui.print_json({"memory_bytes": limit.available_bytes, "models": models})
        return
    free = ui.format_memory(limit.available_bytes)
    about = f"{free} of memory are free here" if memory is None else f"with {free} of memory"
    _print(rows, marked, f"models ({about})")
    if measured.speeds is None and rows:
        ui.note("how fast this machine is was not measured yet: moestream models list --measure")


def _measured(specs: "Iterable[ModelSpec]", measure: bool, quiet: bool) -> "Measured":
    from moestream.forecast.estimate import kernel_type

    if not measure:
        return measured_before()
    types = {kernel_type(spec.what) for spec in specs}
    return measured_now((name for name in types if name is not None), quiet=quiet)


def _recommended(rows: "list[Row]") -> set[str]:
    """The largest that fits, and the largest that streams well, of those to begin with."""
    best: dict[str, Row] = {}
    for row in rows:
        figures, (fit, speed) = row
        streams = (fit.experts_share or 0.0) >= _ENOUGH_SHARE
        quick = speed is None or speed.tps >= _ENOUGH_TPS
        runs_well = fit.verdict == "fits" or (streams and quick)
        if figures.spec is None or not figures.spec.recommended or not runs_well:
            continue
        before = best.get(fit.verdict)
        if before is None or (figures.parameters or 0) > (before[0].parameters or 0):
            best[fit.verdict] = row
    return {figures.name for figures, _ in best.values()}


def _print(rows: "list[Row]", marked: set[str], title: str) -> None:
    from moestream.cli.commands.models.figures import (
        bytes_told,
        count_told,
        speed_cell,
        verdict_told,
    )

    cells = [
        (
            figures.name,
            bytes_told(figures.size_bytes),
            count_told(figures.active_parameters),
            "yes" if figures.path else "no",
            speed_cell(estimate),
            verdict_told(figures, estimate).replace(" of the experts", "")
            + (" *" if figures.name in marked else ""),
        )
        for figures, estimate in rows
    ]
    columns = ("name", ">size", ">active", "here", ">tok/s", "runs here")
    ui.print_table(title, columns, cells)
    if marked & {figures.name for figures, _ in rows}:
        ui.print_line("* a good one to begin with in this memory")


def _as_json(
    rows: "list[Row]", known: "Mapping[str, ModelSpec]", marked: set[str]
) -> list[dict[str, Any]]:
    from moestream.catalog import user_catalog

    own = user_catalog()
    return [
        {
            **figures.to_dict(estimate),
            "description": known[figures.name].description,
            "licence": known[figures.name].licence,
            "source": known[figures.name].source,
            "yours": figures.name in own,
            "recommended": figures.name in marked,
        }
        for figures, estimate in rows
    ]
