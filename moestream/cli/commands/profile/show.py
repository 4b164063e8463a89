"""``moestream profile list``, ``show`` and ``rm``: what there is, what is in it, and its end."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.options.output import json_option
from moestream.cli.options.profile import name_argument
from moestream.errors import ProfileError

if TYPE_CHECKING:
    from moestream.profiles import Profile
    from moestream.profiles.analysis import LayerUse


@click.command("list", cls=Command, examples="moestream profile list --json")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the profiles that have names.

    They lie in the platform's folder for data, or in profiles/ of $MOESTREAM_DATA.
    """
    from moestream.profiles.names import load_profile, profile_names, profile_path, profiles_dir

    found: list[dict[str, Any]] = []
    for name in profile_names():
        try:
            found.append({**summary(load_profile(name), profile_path(name)), "error": None})
        except ProfileError as error:
            found.append({"name": name, "error": str(error)})
    if as_json:
        ui.print_json({"folder": str(profiles_dir()), "profiles": found})
        return
    sound = [item for item in found if not item["error"]]
    if sound:
        columns = ("name", ">tokens", "model", "saved")
        rows = [(i["name"], str(i["tokens"]), i["model"], i["saved"]) for i in sound]
        ui.print_table(str(profiles_dir()), columns, rows)
    elif not found:
        ui.note(f"there are no profiles in {profiles_dir()}")
    for item in found:
        if item["error"]:
            ui.warning(item["error"])


@click.command(cls=Command, examples="moestream profile show italian --png italian.png")
@name_argument()
@option(
    "--hottest",
    "count",
    type=click.IntRange(min=1),
    default=3,
    metavar="N",
    help="How many experts to name in each layer.",
)
@json_option
@option(
    "--png",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw the map and the coverage; needs matplotlib.",
)
def show(name: str, count: int, as_json: bool, png: Path | None) -> None:
    """Show which experts a profile's workload used.

    Shares are of the decayed counts, in which late tokens count for more. The coverage is what the
    hottest quarter of a layer's experts was used for; the entropy is in bits, the more the more
    evenly experts are used.
    """
    from moestream.profiles.analysis import coverage_curve, layer_uses
    from moestream.profiles.names import load_profile, profile_path

    if png:
        from moestream.cli.reports import plots

        plots.require(png)
    profile = load_profile(name)
    layers = layer_uses(profile, count)
    if png:
        plots.draw_profile(
            png, profile.name, profile.shares(), profile.layers, coverage_curve(profile).tolist()
        )
    if as_json:
        value = {
            **summary(profile, profile_path(name)),
            "coverage": coverage_curve(profile).tolist(),
        }
        uses = zip(layers, profile.uses.tolist(), profile.decayed.tolist(), strict=True)
        value["layers"] = [
            {**dataclasses.asdict(layer), "uses": plain, "decayed": decayed}
            for layer, plain, decayed in uses
        ]
        ui.print_json(value)
        return
    _print(profile, layers)


@click.command(cls=Command, examples="moestream profile rm italian code")
@name_argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def rm(names: tuple[str, ...], as_json: bool) -> None:
    """Delete profiles."""
    from moestream.profiles.names import remove_profile

    removed = [str(remove_profile(name)) for name in names]
    if as_json:
        ui.print_json({"removed": removed})
        return
    for path in removed:
        ui.note(f"deleted {path}")


def summary(profile: "Profile", path: Path) -> dict[str, Any]:
    """What a profile is, for JSON, and where."""
    fingerprint = profile.fingerprint
    return {
        "name": profile.name,
        "path": str(path),
        "model": profile.model,
        "architecture": fingerprint.architecture,
        "num_layers": fingerprint.num_layers,
        "num_experts": fingerprint.num_experts,
        "num_experts_per_tok": fingerprint.num_experts_per_tok,
        "tensors_sha256": fingerprint.tensors_sha256,
        "saved": profile.saved,
        "tokens": profile.tokens,
        "half_life": profile.half_life,
        "options": dict(profile.options),
    }


def fields(profile: "Profile") -> list[tuple[str, str]]:
    """What a profile is, in words."""
    fingerprint = profile.fingerprint
    shape = f"{len(profile.layers)} layers of {fingerprint.num_experts} experts"
    return [
        ("model", profile.model or "unknown"),
        ("experts", f"{shape}, {fingerprint.num_experts_per_tok} a token"),
        ("tokens", f"{profile.tokens}, fading by half in {profile.half_life:g}"),
        ("saved", profile.saved or "not yet"),
        *([("options", _told(profile))] if profile.options else []),
    ]


def _told(profile: "Profile") -> str:
    return ", ".join(f"{key} {value}" for key, value in profile.options.items())


def _print(profile: "Profile", layers: "list[LayerUse]") -> None:
    ui.print_fields(profile.name, fields(profile))
    most = math.log2(profile.fingerprint.num_experts)
    rows = [
        (
            str(use.layer),
            f"{use.entropy:.2f}",
            f"{use.coverage:.1%}",
            ", ".join(f"{expert} ({share:.1%})" for expert, share in use.hottest),
        )
        for use in layers
    ]
    columns = ("layer", ">entropy", ">coverage", "hottest experts")
    ui.print_table(f"layers (entropy of {most:.2f} bits at most)", columns, rows)
    shares = profile.shares()
    scale = shares.max()
    heat = (shares / scale).tolist()
    labels = [str(layer) for layer in profile.layers]
    ui.print_heat(f"experts by layer, up to {scale:.0%} of a layer's uses", labels, heat)
