"""``moestream plan``: what will come of a model in this memory, before it is loaded.

Owns the options and what they come to. The sums are ``forecast``'s.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, file_option, option
from moestream.cli.opening import open_header
from moestream.cli.options.engine import context_options
from moestream.cli.options.fleet import link_option, link_or_default, machines_option
from moestream.cli.options.memory import budgets_option, memory_of, memory_option
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option
from moestream.cli.options.profile import complete_profile, parts_callback
from moestream.cli.reports.fleet import FleetKnown, print_fleet
from moestream.cli.reports.fleet import as_json as fleet_as_json
from moestream.cli.reports.plan import Known, print_report
from moestream.cli.reports.plan import as_json as report_as_json
from moestream.errors import UnsupportedModelError

if TYPE_CHECKING:
    from moestream.forecast.hits import Hits
    from moestream.forecast.pipeline import Link
    from moestream.gguf import GGUFHeader
    from moestream.profiles.names import Part

EXAMPLES = """
moestream plan qwen3-30b-a3b-instruct-2507
moestream plan hf:unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M --memory 16G -c 8192
moestream plan demo --profile italian
moestream plan model.gguf --budget 6G,8G,12G --trace run.route.csv.gz --json
moestream plan hf:unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M --machines 16G,16G --link 10G,50us
"""
_MOST_TOKENS = 10_000_000
_PROMPTS = (1000, 10_000)


def _prompts(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    if text is None:
        return _PROMPTS
    counts = text.split(",")
    if not all(count.isdecimal() and 0 < int(count) <= _MOST_TOKENS for count in counts):
        raise click.BadParameter(
            f"{text!r} is no number of tokens; expected 1 to {_MOST_TOKENS:,}, such as 8000 or "
            "1000,8000",
            ctx,
            param,
        )
    return tuple(map(int, counts))


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@memory_option
@budgets_option
@file_option(
    "--trace",
    section="Speed",
    help="Take hit rates from the routing of a run of yours, instead of from models measured "
    "before.",
)
@option(
    "--profile",
    section="Speed",
    callback=parts_callback,
    shell_complete=complete_profile,
    metavar="NAME[:W],...",
    help="Take them from a saved workload; several are mixed by weight. See moestream profile.",
)
@option(
    "--prompt-tokens",
    "prompts",
    section="Speed",
    callback=_prompts,
    metavar="N,...",
    show_default=",".join(map(str, _PROMPTS)),
    help="Say how long prompts of so many tokens take to the first token of the answer.",
)
@option(
    "--measure",
    section="Speed",
    is_flag=True,
    help="Measure this machine anew; otherwise it is measured once.",
)
@machines_option
@link_option
@json_option
@context_options
def plan(
    model: str,
    memory: int | None,
    budgets: tuple[int, ...],
    trace: Path | None,
    profile: "tuple[Part, ...] | None",
    prompts: tuple[int, ...],
    measure: bool,
    machines: tuple[int, ...],
    link: "Link | None",
    as_json: bool,
    context_length: int | None,
    cache_type_k: Any,
    cache_type_v: Any,
) -> None:
    """Say whether a model will run here and how fast, before it is loaded.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Only the header is read, from the hub if the model is not here, and experts
    here and there to see how fast the disk is. Speeds are of decoding with the context full and the
    page cache cold. Times to the first token are of a prompt that comes first, after loading.

    With --machines, layers are divided as mlx.launch would have them, and each machine streams what
    does not fit in its memory; told is what the way between them takes of a token, and the same
    model on one of them.
    """
    from moestream.engine.engine import context_of
    from moestream.forecast.demand import read_demand
    from moestream.forecast.fleet import Wanted, foresee_fleet
    from moestream.forecast.outlook import Grounds, look_ahead
    from moestream.forecast.support import unsupported_reason
    from moestream.forecast.verdict import plan_of
    from moestream.machine.speeds import known_speeds
    from moestream.models import read_config
    from moestream.streaming.memory import require_room

    if trace is not None and profile is not None:
        raise click.UsageError("--trace and --profile exclude each other; pass one of them")
    if machines and (budgets or memory is not None):
        raise click.UsageError(
            "--machines says how much memory there is; leave --memory and --budget out"
        )
    if link is not None and not machines:
        raise click.UsageError("--link is between machines; name them, as --machines 16G,16G")
    with open_header(model, build=False, quiet=as_json) as file:
        if reason := unsupported_reason(file):
            raise UnsupportedModelError(f"{file.path} cannot run here: {_once(reason, file)}")
        context = context_of(read_config(file), context_length)
        demand = read_demand(file, cache_type_k, cache_type_v)
        limit = memory_of(memory)
        for budget in budgets:
            require_room(budget, limit)
        divided = plan_of(
            file,
            limit,
            context=context,
            cache_type_k=cache_type_k,
            cache_type_v=cache_type_v,
        )
        demand = read_demand(file, cache_type_k, cache_type_v)
        hits = _hits(file, trace, profile)
        with ui.progress(quiet=as_json) as progress:
            machine, disk = known_speeds(
                file,
                {*demand.dense_bytes, *demand.expert_bytes},
                anew=measure,
                step=lambda name: progress(name, 0, 1),
            )
        grounds = Grounds(demand, machine, disk, hits, context)
        if machines:
            asked = Wanted(machines, link_or_default(link), prompts, cache_type_k, cache_type_v)
            told = FleetKnown(model, file, context, foresee_fleet(file, grounds, asked), hits)
            ui.print_json(fleet_as_json(told)) if as_json else print_fleet(told)
            return
        outlook = look_ahead(
            divided,
            grounds,
            halved_cache="q8_0" in (cache_type_k, cache_type_v),
            budgets=budgets,
            prompts=prompts,
        )
    known = Known(model, file, context, outlook, machine, disk, hits)
    if as_json:
        ui.print_json(report_as_json(known))
    else:
        print_report(known)


def _once(reason: str, file: "GGUFHeader") -> str:
    """A reason without the name of the file, which is told before it."""
    return reason.removeprefix(f"{file.path}: ")


def _hits(file: "GGUFHeader", trace: Path | None, profile: "tuple[Part, ...] | None") -> "Hits":
    from moestream.forecast.hits import Hits, curve_of_profile, curve_of_trace, default_hits
    from moestream.models import read_config
    from moestream.profiles import Fingerprint
    from moestream.profiles.names import load_mixture

    if trace is not None:
        return Hits(curve_of_trace(trace, of=Fingerprint.of(file)))
    if profile is None:
        return default_hits(read_config(file).num_experts)
    mixture = load_mixture(profile)
    mixture.require(Fingerprint.of(file), file.path.name)
    return Hits(curve_of_profile(mixture))
