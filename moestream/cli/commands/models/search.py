"""``moestream models search``: models on the hub, and what they would do here."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.commands.models.measured import measured_now
from moestream.cli.options.memory import memory_of, memory_option
from moestream.cli.options.output import json_option
from moestream.errors import MoestreamError

if TYPE_CHECKING:
    from moestream.forecast.estimate import Estimate
    from moestream.gguf import GGUFHeader
    from moestream.hub.notation import ModelFiles
    from moestream.hub.repository import Listing
    from moestream.hub.search import Found
    from moestream.streaming.memory import Memory

EXAMPLES = """
moestream models search qwen3 coder
moestream models search gpt-oss --memory 16G
moestream models search "glm 4.7" --limit 3 --json
"""
_AT_ONCE = 4
_MOST = 50


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("words", nargs=-1, required=True)
@memory_option
@option(
    "--limit",
    type=click.IntRange(1, _MOST),
    default=8,
    metavar="N",
    help="Look at so many repositories.",
)
@json_option
def search(words: tuple[str, ...], memory: int | None, limit: int, as_json: bool) -> None:
    """Find models on the hub, and say which would run here and how fast.

    Asks for repositories with GGUF files whose names have all WORDS, the most downloaded first. Of
    each, one model is looked at: in four bits, if there is one. Its header, a few MB, is read for
    the figures that plan gives. moestream models info hf:ORG/REPO lists the others.
    """
    from concurrent.futures import ThreadPoolExecutor

    from moestream.hub.http import endpoint
    from moestream.hub.search import search as ask

    limits = memory_of(memory)
    with ui.working(f"asking {endpoint()}", quiet=as_json):
        found = ask(" ".join(words), limit)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            looked = list(pool.map(_look, found))
    headers = [each.header for each in looked if each.header is not None]
    estimates = iter(_estimates(headers, limits, quiet=as_json))
    pairs = [(each, next(estimates) if each.header else None) for each in looked]
    if as_json:
        models = [_as_json(each, estimate) for each, estimate in pairs]
        ui.print_json({"memory_bytes": limits.available_bytes, "models": models})
        return
    _print(pairs, ui.format_memory(limits.available_bytes))


@dataclass(frozen=True, slots=True)
class _Looked:
    """A repository, the model of it that is meant, and its header, or why there is none."""

    found: "Found"
    name: str
    size_bytes: int | None = None
    quants: tuple[str, ...] = ()
    header: "GGUFHeader | None" = None
    reason: str = ""


def _look(found: "Found") -> _Looked:
    """Ask what a repository has, and read a header of it if that can run here."""
    from moestream.hub import PREFIX
    from moestream.hub.repository import list_repository
    from moestream.hub.search import usual_model

    looked = _Looked(found, f"{PREFIX}{found.repository}")
    try:
        listing = list_repository(found.repository)
        model = usual_model(listing)
        if model is None:
            return replace(looked, reason="no: it has no model")
        models = listing.models()
        alone = model.quant is not None and [m.quant for m in models].count(model.quant) == 1
        looked = replace(
            looked,
            name=f"{looked.name}:{model.quant if alone else model.names[0]}",
            size_bytes=listing.size_bytes(model),
            quants=tuple(each.quant for each in models if each.quant is not None),
        )
        return _with_header(looked, listing, model)
    except MoestreamError as error:
        return replace(looked, reason=f"unknown: {error}")


def _with_header(looked: _Looked, listing: "Listing", model: "ModelFiles") -> _Looked:
    from moestream.forecast.support import unsupported_reason
    from moestream.hub.remote_header import fetch_header
    from moestream.models import ARCHITECTURES

    told = looked.found.architecture
    if told is not None and told not in ARCHITECTURES:
        return replace(looked, reason=f"no: {told}")
    header = fetch_header(listing, model)
    architecture = header.get("general.architecture", str)
    if architecture not in ARCHITECTURES:
        return replace(looked, reason=f"no: {architecture}")
    if unsupported_reason(header) is not None:
        return replace(looked, reason="no: see moestream plan")
    return replace(looked, header=header)


def _estimates(headers: "list[GGUFHeader]", memory: "Memory", *, quiet: bool) -> "list[Estimate]":
    from moestream.forecast.demand import read_demand
    from moestream.forecast.estimate import estimate_of

    if not headers:
        return []
    demands = [read_demand(header) for header in headers]
    types = {name for each in demands for name in (*each.dense_bytes, *each.expert_bytes)}
    measured = measured_now(types, quiet=quiet)
    return [estimate_of(header, memory, measured) for header in headers]


def _print(pairs: "list[tuple[_Looked, Estimate | None]]", free: str) -> None:
    from moestream.cli.commands.models.figures import bytes_told, fit_told, speed_cell

    cells = [
        (
            each.name,
            bytes_told(each.size_bytes),
            "-" if estimate is None else speed_cell(estimate),
            each.reason if estimate is None else fit_told(estimate).replace(" of the experts", ""),
        )
        for each, estimate in pairs
    ]
    columns = ("name", ">size", ">tok/s", "runs here")
    ui.print_table(f"on the hub, the most downloaded first ({free} of memory)", columns, cells)


def _as_json(each: _Looked, estimate: "Estimate | None") -> dict[str, Any]:
    from moestream.cli.commands.models.figures import estimate_as_json
    from moestream.forecast.estimate import Estimate
    from moestream.forecast.verdict import Fit

    foreseen = estimate or Estimate(Fit("unknown"))
    supported = not each.reason.startswith("no: ")
    return {
        "name": each.name,
        **asdict(each.found),
        "size_bytes": each.size_bytes,
        "quants": list(each.quants),
        **estimate_as_json(foreseen, supported=supported),
        "reason": each.reason or None,
    }
