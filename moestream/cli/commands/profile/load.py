"""``moestream profile load``: a profile's experts into the page cache, for the next run."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import click

from moestream import ui
from moestream.cli.command import Command
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option
from moestream.cli.options.profile import complete_profile, parts_callback
from moestream.cli.options.streaming import budget_option
from moestream.errors import ProfileError

if TYPE_CHECKING:
    from moestream.profiles.names import Part
    from moestream.streaming.memory import MemoryPlan
    from moestream.streaming.statistics import Warming


@click.command(cls=Command, examples="moestream profile load italian demo --budget 800M")
@click.argument(
    "parts", metavar="NAME[:W],...", callback=parts_callback, shell_complete=complete_profile
)
@model_argument(default="demo")
@budget_option
@json_option
def load(parts: "tuple[Part, ...]", model: str, budget: str | None, as_json: bool) -> None:
    """Read a profile's hottest experts into memory, so that the next run finds them there.

    They are left in the system's page cache, as many as fit into the budget, with the model's
    dense weights. A run that maps the model, or reads through the page cache (--io madvise or
    pread), then starts warm; it may give the same --profile.
    """
    from moestream.catalog import resolve
    from moestream.engine.engine import Engine
    from moestream.profiles.names import load_mixture
    from moestream.streaming.options import StreamingOptions

    if budget == "none":
        raise click.UsageError("--budget none sets no limit; give 6G, 50%, or auto")
    profile = load_mixture(parts)
    options = StreamingOptions(io="madvise", pin="none", prefetch=False)
    with ui.progress(quiet=as_json) as progress:
        path = resolve(model, progress=progress)
    with ui.working(f"loading {model}", quiet=as_json) as progress:
        engine = Engine.open(
            path,
            budget=budget or "auto",
            streaming=options,
            profile=profile,
            on_warmed=partial(progress, "reading the profile's experts"),
        )
    with engine:
        if engine.streaming is None:
            raise ProfileError(f"{path}: has no experts, so there is nothing to load")
        warming, plan = engine.streaming.stats().warming, engine.streaming.plan
    if as_json:
        plan_json = {**dataclasses.asdict(plan), "warning": plan.warning}
        value = {"profile": profile.name, "model": str(path), "plan": plan_json}
        ui.print_json({**value, "warming": dataclasses.asdict(warming)})
    else:
        ui.print_fields(profile.name, _fields(warming, plan))


def _fields(warming: "Warming", plan: "MemoryPlan") -> list[tuple[str, str]]:
    share = warming.bytes / plan.total_expert_bytes
    n_bytes = ui.format_memory
    return [
        ("budget", f"{n_bytes(plan.budget_bytes)}, {n_bytes(plan.experts_bytes)} for experts"),
        ("in memory", f"{warming.experts} experts, {n_bytes(warming.bytes)}, {share:.0%} of all"),
        ("read now", f"{n_bytes(warming.read_bytes)} in {warming.elapsed_s:.2f} s"),
    ]
