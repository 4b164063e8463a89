"""``moestream models info`` and ``path``: one model, here or on the hub."""

from typing import TYPE_CHECKING

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option
from moestream.errors import ModelNotFoundError

if TYPE_CHECKING:
    from moestream.catalog import ModelSpec
    from moestream.cli.commands.models.figures import Figures
    from moestream.forecast.estimate import Estimate
    from moestream.streaming.memory import Memory

INFO_EXAMPLES = """
moestream models info qwen3-coder-30b-a3b
moestream models info qwen3-coder-30b-a3b --files
moestream models info hf:unsloth/Qwen3-30B-A3B-GGUF
"""
PATH_EXAMPLES = """
moestream models path demo
ls -l "$(moestream models path demo)"
"""


@click.command(cls=Command, examples=INFO_EXAMPLES)
@model_argument()
@option("--files", is_flag=True, help="Ask the hub what else its repository has.")
@json_option
def info(model: str, files: bool, as_json: bool) -> None:
    """Say what a model is, what it takes, and how it would run here.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file. Of a
    repository that nothing is here of, the hub is asked what it has.
    """
    from moestream.catalog import catalog, find_spec, resolve
    from moestream.cli.commands.models.figures import catalogue_figures, file_figures
    from moestream.cli.commands.models.measured import measured_before
    from moestream.streaming.memory import available_memory

    spec = find_spec(model)
    if spec is None:
        path = resolve(model)
        figures = file_figures(path.stem, path)
    else:
        figures = catalogue_figures(spec)
        if figures.path is not None and not figures.exact:
            figures = file_figures(spec.name, figures.path)
    of_hub = spec is not None and spec.kind == "hf"
    ask = of_hub and (files or (spec.name not in catalog() and figures.path is None))  # type: ignore[union-attr]
    rows = _on_hub(spec) if ask and spec is not None else []
    memory = available_memory()
    estimate = figures.estimate(memory, measured_before())
    if as_json:
        value = figures.to_dict(estimate)
        if spec is not None:
            told = {"description", "licence", "source"}
            value |= {key: getattr(spec, key) for key in told}
        if ask:
            value["hub"] = [
                {"quant": quant, "size_bytes": size, "files": names} for quant, size, names in rows
            ]
        ui.print_json(value)
        return
    ui.print_fields(model, _fields(spec, figures, memory, estimate))
    if ask and spec is not None:
        table = [(quant or "-", ui.format_bytes(size), names[0]) for quant, size, names in rows]
        ui.print_table("on the hub", ("quant", ">size", "file"), table)


def _fields(
    spec: "ModelSpec | None", figures: "Figures", memory: "Memory", estimate: "Estimate"
) -> list[tuple[str, str]]:
    from moestream.cli.commands.models.figures import bytes_told, count_told, verdict_told
    from moestream.cli.reports.plan import speed_range

    about = "" if figures.exact or figures.expert_bytes is None else "about "
    fields = [("here", "no" if figures.path is None else str(figures.path))]
    if spec is not None:
        fields = [
            *([("description", spec.description)] if spec.description else []),
            *([("from", spec.base)] if spec.base else []),
            ("source", spec.source),
            *([("made of", spec.published)] if spec.published else []),
            ("licence", spec.licence or "unknown"),
            *fields,
        ]
    architecture = figures.architecture or "unknown"
    if figures.unknown_architecture:
        architecture += ", which does not run here yet"
    return [
        *fields,
        *_preset(spec),
        ("architecture", architecture),
        ("size", bytes_told(figures.size_bytes)),
        ("parameters", count_told(figures.parameters)),
        ("active a token", count_told(figures.active_parameters)),
        ("experts", about + bytes_told(figures.expert_bytes)),
        ("experts a token", about + bytes_told(figures.expert_bytes_per_token)),
        (f"in {ui.format_memory(memory.available_bytes)}", verdict_told(figures, estimate)),
        *([("speed", speed_range(estimate.speed))] if estimate.speed else []),
    ]


def _preset(spec: "ModelSpec | None") -> list[tuple[str, str]]:
    """What the entry says of how it is used."""
    if spec is None:
        return []
    sampling = ", ".join(f"{name} {value}" for name, value in spec.sampling.items())
    found = [
        ("system prompt", spec.system_prompt),
        ("sampling", sampling),
        ("context", None if spec.context is None else f"{spec.context}"),
        ("profile", spec.profile),
    ]
    return [(label, value) for label, value in found if value]


def _on_hub(spec: "ModelSpec") -> list[tuple[str | None, int, list[str]]]:
    """Quantisation, bytes and files of every model in the repository, the smallest first."""
    from moestream.hub import parse_reference
    from moestream.hub.repository import list_repository

    repository = parse_reference(spec.source).repository
    with ui.working(f"asking the hub for {repository}"):
        listing = list_repository(repository)
    rows = [
        (model.quant, listing.size_bytes(model), list(model.names)) for model in listing.models()
    ]
    return sorted(rows, key=lambda row: row[1])


@click.command(cls=Command, examples=PATH_EXAMPLES)
@model_argument()
@json_option
def path(model: str, as_json: bool) -> None:
    """Print where a model lies; fail if it is not here.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file.
    """
    from moestream.catalog import find_spec, locate, resolve

    spec = find_spec(model)
    if spec is None:
        found = resolve(model)
    else:
        here = locate(spec)
        if here is None:
            raise ModelNotFoundError(
                f"{model} is not here; fetch it with: moestream models pull {model}"
            )
        found = here
    if as_json:
        ui.print_json({"model": model, "path": str(found)})
    else:
        ui.print_line(str(found))
