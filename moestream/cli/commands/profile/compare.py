"""``moestream profile diff`` and ``merge``: two profiles side by side, several in one."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.commands.profile.show import fields, summary
from moestream.cli.options.output import json_option
from moestream.cli.options.profile import (
    complete_profile,
    file_callback,
    name_argument,
    parts_callback,
)
from moestream.cli.options.simulate import budgets_callback

if TYPE_CHECKING:
    from pathlib import Path

    from moestream.profiles.analysis import Overlap
    from moestream.profiles.names import Part


@click.command(cls=Command, examples="moestream profile diff italian code --budget 200M,25%")
@name_argument("a", metavar="A")
@name_argument("b", metavar="B")
@option(
    "--budget",
    "budgets",
    callback=budgets_callback,
    default="5%,10%,25%,50%",
    metavar="LIST",
    help="For experts, as 640M or 2G (binary) or a share of all experts.",
)
@json_option
def diff(a: str, b: str, budgets: tuple[str, ...], as_json: bool) -> None:
    """Say how alike two profiles are, and what one would miss with the other's experts.

    At each budget, the experts that are hottest in A and those that are in B are held against each
    other: how many are the same, and what share of each one's uses falls outside either set.
    """
    from moestream.profiles import mix
    from moestream.profiles.analysis import overlaps, similarity
    from moestream.profiles.names import load_profile, profile_path
    from moestream.streaming.budget import parse_budget

    first, second = load_profile(a), load_profile(b)
    mix([(first, 1.0), (second, 1.0)], "both")  # raises unless they are of one model
    total = first.fingerprint.total_bytes
    found = overlaps(first, second, [parse_budget(text, total) for text in budgets])
    layers = similarity(first, second)
    alike = sum(layers) / len(layers)
    if as_json:
        rows = [
            {"budget": text, **dataclasses.asdict(row)}
            for text, row in zip(budgets, found, strict=True)
        ]
        by_layer = dict(zip(map(str, first.layers), layers, strict=True))
        parts = {
            "a": summary(first, profile_path(a)),
            "b": summary(second, profile_path(b)),
        }
        ui.print_json({**parts, "similarity": alike, "by_layer": by_layer, "budgets": rows})
        return
    ui.print_fields(f"{a} and {b}", _alike(alike, dict(zip(first.layers, layers, strict=True))))
    _print(a, b, budgets, found)


@click.command(cls=Command, examples="moestream profile merge daily italian:2 code")
@name_argument("path", metavar="NAME", callback=file_callback)
@click.argument(
    "parts",
    nargs=-1,
    required=True,
    metavar="NAME[:WEIGHT]...",
    callback=parts_callback,
    shell_complete=complete_profile,
)
@json_option
def merge(path: "Path", parts: "tuple[Part, ...]", as_json: bool) -> None:
    """Write one profile out of several.

    A profile's weight, 1 unless given, is its part in the mixture however long its workload was.
    Plain counts add up.
    """
    from moestream.profiles import mix, require_place, write_profile
    from moestream.profiles.names import load_profile

    require_place(path)
    loaded = [(load_profile(name), weight) for name, weight in parts]
    merged = write_profile(mix(loaded, path.stem), path)
    if as_json:
        ui.print_json(summary(merged, path))
    else:
        ui.print_fields(str(path), fields(merged))


def _alike(alike: float, layers: dict[int, float]) -> list[tuple[str, str]]:
    least, most = (pick(layers, key=lambda layer: layers[layer]) for pick in (min, max))
    return [
        ("uses in common", f"{alike:.1%}"),
        ("least", f"layer {least}, {layers[least]:.1%}"),
        ("most", f"layer {most}, {layers[most]:.1%}"),
    ]


def _print(a: str, b: str, budgets: tuple[str, ...], found: "list[Overlap]") -> None:
    def row(text: str, overlap: "Overlap") -> list[str]:
        misses: list[Any] = [*overlap.misses[0], *reversed(overlap.misses[1])]
        return [text, f"{overlap.shared:.1%}", *(f"{miss:.1%}" for miss in misses)]

    columns = ["budget", ">same experts", f">{a} misses", f">with {b}'s", f">{b} misses"]
    rows = [row(text, overlap) for text, overlap in zip(budgets, found, strict=True)]
    ui.print_table("hottest experts that fit", [*columns, f">with {a}'s"], rows)
