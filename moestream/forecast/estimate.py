"""Whether a model would run in so much memory, and how fast: ``plan``'s figures for a list's line.

Of a model whose header is not at hand, about the same is said from the catalogue's sizes.
"""

from typing import TYPE_CHECKING, NamedTuple

from moestream.catalog import ModelSpec
from moestream.engine.engine import context_of
from moestream.forecast.demand import Demand, read_demand
from moestream.forecast.verdict import CONTEXT_BYTES, Fit, fit_of, plan_of, plan_of_sizes
from moestream.gguf import GGUFHeader
from moestream.hub.notation import quantisation
from moestream.models import read_config
from moestream.quants import GGMLQuantizationType
from moestream.streaming.memory import Memory, MemoryPlan

if TYPE_CHECKING:  # speeds need the native kernels, verdicts do not
    from moestream.forecast.speed import Forecast
    from moestream.machine.speeds import DiskSpeed, Speeds

_MIXES = {"IQ2_M": "IQ2_S", "IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_S", "MXFP4_MOE": "MXFP4"}
"""What most of a file's weights are in, where its name says something else."""


class Measured(NamedTuple):
    """What is known of this machine; None where it was not measured."""

    speeds: "Speeds | None" = None
    disk: "DiskSpeed | None" = None


class Estimate(NamedTuple):
    """A verdict, and tokens a second where they can be told."""

    fit: Fit
    speed: "Forecast | None" = None


def estimate_of(file: GGUFHeader, memory: Memory, measured: Measured) -> Estimate:
    """As ``plan`` foresees it with its defaults.

    Raises:
        ModelFormatError, UnsupportedModelError: the header is not that of a model that can run.
    """
    plan = plan_of(file, memory)
    config = read_config(file)
    demand = read_demand(file)
    return _estimate(plan, demand, measured, context_of(config, None))


def estimate_of_spec(spec: ModelSpec, memory: Memory, measured: Measured) -> Estimate:
    """About the same, from what the catalogue says; unknown where it says too little."""
    size, experts, per_token = spec.loadable_bytes, spec.expert_bytes, spec.expert_bytes_per_token
    if size is None or experts is None or per_token is None:
        return Estimate(Fit("unknown"))
    plan = plan_of_sizes(memory, size, experts, per_token)
    kernel = kernel_type(spec.what)
    if kernel is None:
        return Estimate(fit_of(plan))
    layers = spec.num_moe_layers or 1
    demand = Demand(
        dense_bytes={kernel: size - experts},
        expert_bytes={kernel: per_token},
        num_layers=layers,
        num_moe_layers=layers,
        num_experts=spec.num_experts or 1,
        num_experts_per_tok=spec.num_experts_per_tok or 1,
        kv_bytes=CONTEXT_BYTES,  # all of a context, as if of one token
    )
    return _estimate(plan, demand, measured, 1)


def kernel_type(file: str) -> str | None:
    """The type of most weights of a file, by its name, or None if that does not tell."""
    quant = (quantisation(file) or "").removeprefix("UD-")
    quant = _MIXES.get(quant, quant)
    steps = quant.split("_")
    known = GGMLQuantizationType.__members__
    return next((name for name in (quant, "_".join(steps[:-1])) if name in known), None)


def _estimate(plan: MemoryPlan, demand: Demand, measured: Measured, context: int) -> Estimate:
    speeds, disk = measured
    fit = fit_of(plan)
    needed = {*demand.dense_bytes, *demand.expert_bytes}
    if speeds is None or fit.verdict == "too little" or needed - set(speeds.kernel_bytes_per_s):
        return Estimate(fit)
    if disk is None and not plan.fits:
        return Estimate(fit)
    from moestream.forecast.hits import default_hits
    from moestream.forecast.outlook import Grounds, point_of

    hits = default_hits(demand.num_experts)
    point = point_of(plan, Grounds(demand, speeds, disk, hits, context))
    return Estimate(fit, point.forecast)
