"""``moestream inspect``: say what a model file is.

Owns which facts are shown and their words. The facts come from ``summary``.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.opening import open_header
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option

if TYPE_CHECKING:
    from moestream.gguf import GGUFHeader, MetadataValue
    from moestream.models.summary import Dimension, ModelSummary, TokenizerSummary

EXAMPLES = """
moestream inspect demo
moestream inspect model.gguf --tensors
moestream inspect hf:unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M
moestream inspect model.gguf --json | jq .sizes
"""
_SHOWN_ITEMS = 6
_SHOWN_CHARACTERS = 80


@click.command(cls=Command, examples=EXAMPLES)
@model_argument()
@option("--tensors", is_flag=True, help="List the tensors, in file order.")
@option("--metadata", is_flag=True, help="List all metadata keys; long values are cut.")
@json_option
def inspect(model: str, tensors: bool, metadata: bool, as_json: bool) -> None:
    """Say what a model file is: architecture, sizes, experts, quantisation, tokenizer.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file. Nothing
    but the header is read, from the hub if the model is not here; so a vocabulary or a model that
    cannot run here can be looked at too.
    """
    from moestream.forecast.support import unsupported_reason
    from moestream.models.summary import summarize

    with open_header(model, build=True, quiet=False) as file:
        summary = summarize(file, unsupported_reason(file))
        if as_json:
            ui.print_json(_as_json(summary, file, tensors=tensors, metadata=metadata))
            return
        _print_summary(summary, file)
        if tensors:
            _print_tensors(file)
        if metadata:
            ui.print_fields("metadata", [(k, _shorten(v)) for k, v in file.metadata.items()])


def _as_json(
    summary: "ModelSummary", file: "GGUFHeader", *, tensors: bool, metadata: bool
) -> dict[str, Any]:
    value = dataclasses.asdict(summary)
    if tensors:
        value["tensors"] = [
            {
                "name": info.name,
                "type": info.type.name,
                "shape": list(info.shape),
                "bytes": info.n_bytes,
                "offset": info.offset,
                "shard": info.shard,
            }
            for info in file.tensors.values()
        ]
    if metadata:
        value["metadata"] = {key: _json_value(item) for key, item in file.metadata.items()}
    return value


def _print_summary(summary: "ModelSummary", file: "GGUFHeader") -> None:
    shards = f", {len(summary.shards)} shards" if len(summary.shards) > 1 else ""
    ui.print_fields(
        "model",
        [
            ("path", summary.path),
            (
                "file",
                f"{ui.format_memory(summary.file_bytes)}, GGUF v{summary.gguf_version}{shards}",
            ),
            ("name", _or_unknown(summary.name)),
            ("architecture", _or_unknown(summary.architecture)),
            ("supported", "yes" if summary.supported else f"no: {summary.unsupported_reason}"),
        ],
    )
    if file.tensors:
        ui.print_fields("size", _size_fields(summary))
    ui.print_fields("shape", _shape_fields(summary))
    ui.print_fields("tokenizer", _tokenizer_fields(summary.tokenizer, file))
    if file.tensors:
        _print_quantisation(summary)


def _size_fields(summary: "ModelSummary") -> list[tuple[str, str]]:
    sizes = summary.sizes
    fields = [("parameters", ui.format_count(sizes.parameters))]
    if sizes.expert_bytes:
        active, per_token = sizes.active_parameters, sizes.expert_bytes_per_token
        fields += [
            ("active a token", "unknown" if active is None else ui.format_count(active)),
            ("dense weights", ui.format_memory(sizes.dense_bytes)),
            ("experts", ui.format_memory(sizes.expert_bytes)),
            ("experts a token", "unknown" if per_token is None else ui.format_memory(per_token)),
        ]
    else:
        fields.append(("dense weights", ui.format_memory(sizes.dense_bytes)))
    if sizes.table_bytes:
        fields.append(("table, read by row", ui.format_memory(sizes.table_bytes)))
    return fields


def _shape_fields(summary: "ModelSummary") -> list[tuple[str, str]]:
    shape = summary.shape
    layers = _dimension(shape.num_layers)
    if 0 < shape.num_moe_layers != shape.num_layers:
        layers += f", {shape.num_moe_layers} with experts"
    heads = f"{_dimension(shape.num_heads)}, {_dimension(shape.num_kv_heads)} for keys and values"
    fields = [
        ("layers", layers),
        ("hidden size", _dimension(shape.hidden_size)),
        ("heads", heads),
        ("context", _dimension(shape.context_length)),
    ]
    if shape.num_experts:
        chosen = _dimension(shape.num_experts_per_tok)
        fields.append(("experts", f"{_dimension(shape.num_experts)}, {chosen} a token"))
    return fields


def _tokenizer_fields(tokenizer: "TokenizerSummary", file: "GGUFHeader") -> list[tuple[str, str]]:
    value = file.metadata.get("tokenizer.ggml.tokens")
    tokens = value if isinstance(value, list) else []
    specials = [
        f"{name} {id}" + (f" {tokens[id]}" if 0 <= id < len(tokens) else "")
        for name, id in tokenizer.special_ids.items()
    ]
    return [
        ("model", _or_unknown(tokenizer.model)),
        ("pre", _or_unknown(tokenizer.pre)),
        ("vocabulary", str(tokenizer.vocab_size)),
        ("special ids", ", ".join(specials) or "none"),
        ("chat template", "yes" if tokenizer.chat_template else "no"),
    ]


def _print_quantisation(summary: "ModelSummary") -> None:
    rows = [
        (
            total.type,
            str(total.tensors),
            ui.format_count(total.parameters),
            ui.format_memory(total.bytes),
            f"{8 * total.bytes / total.parameters:.2f}",
        )
        for total in summary.quantisation
    ]
    mixture = f" ({summary.file_type})" if summary.file_type else ""
    columns = ("type", ">tensors", ">parameters", ">size", ">bits each")
    ui.print_table(f"quantisation{mixture}", columns, rows)


def _print_tensors(file: "GGUFHeader") -> None:
    rows = [
        (
            info.name,
            info.type.name,
            " x ".join(map(str, info.shape)),
            f"{info.n_bytes}",
            f"{info.offset}",
            f"{info.shard}",
        )
        for info in file.tensors.values()
    ]
    ui.print_table("tensors", ("name", "type", "shape", ">bytes", ">offset", ">shard"), rows)


def _or_unknown(value: str | None) -> str:
    return "unknown" if value is None else value


def _dimension(value: "Dimension") -> str:
    if isinstance(value, list):
        return f"{min(value)} to {max(value)}, by layer"
    return "unknown" if value is None else str(value)


def _shorten(value: "MetadataValue") -> str:
    """Show a value in one line: the head of a long list or text, and how long it is."""
    if isinstance(value, list):
        head = ", ".join(_shorten(item) for item in value[:_SHOWN_ITEMS])
        return f"[{head}, ... {len(value)} items]" if len(value) > _SHOWN_ITEMS else f"[{head}]"
    text = repr(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... {len(str(value))} characters"


def _json_value(value: "MetadataValue") -> Any:
    """Keep texts whole, long lists by length and head; JSON has no NaN and no infinity."""
    if isinstance(value, list):
        items = [_json_value(item) for item in value[:_SHOWN_ITEMS]]
        return {"length": len(value), "first": items} if len(value) > _SHOWN_ITEMS else items
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
