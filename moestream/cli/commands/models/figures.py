"""What is known of a model, from its file if it is here, from the catalogue otherwise."""

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moestream import ui
from moestream.catalog import ModelSpec, locate
from moestream.cli.reports.plan import speed_told
from moestream.errors import MoestreamError

if TYPE_CHECKING:
    from moestream.forecast.estimate import Estimate, Measured
    from moestream.streaming.memory import Memory


@dataclass(frozen=True, slots=True)
class Figures:
    """Sizes in bytes; what is not known is None. Figures of the catalogue are about right."""

    name: str
    path: Path | None
    architecture: str | None
    supported: bool | None
    size_bytes: int | None
    parameters: int | None
    active_parameters: int | None
    expert_bytes: int | None
    expert_bytes_per_token: int | None
    exact: bool
    spec: ModelSpec | None = None

    @property
    def unknown_architecture(self) -> bool:
        """Whether it cannot run here for its architecture, and not for what is in its file."""
        from moestream.models import ARCHITECTURES

        return self.supported is False and self.architecture not in ARCHITECTURES

    def estimate(self, memory: "Memory", measured: "Measured") -> "Estimate":
        """Say how it would run in so much memory: as ``plan`` says where its file is here."""
        from moestream.forecast.estimate import Estimate, estimate_of, estimate_of_spec
        from moestream.forecast.verdict import Fit

        if self.path is None:
            unknown = Estimate(Fit("unknown"))
            return unknown if self.spec is None else estimate_of_spec(self.spec, memory, measured)
        from moestream.gguf import GGUFFile

        try:
            with GGUFFile.open(self.path) as file:
                return estimate_of(file, memory, measured)
        except MoestreamError:  # its architecture, or its header, is none that runs here
            return Estimate(Fit("unknown"))

    def to_dict(self, estimate: "Estimate") -> dict[str, Any]:
        """Everything, for JSON."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        del known["spec"]
        return {
            **known,
            "path": None if self.path is None else str(self.path),
            **estimate_as_json(estimate, supported=self.supported is not False),
        }


def estimate_as_json(estimate: "Estimate", *, supported: bool) -> dict[str, Any]:
    """What is foreseen, for JSON."""
    fit, speed = estimate
    return {
        "verdict": fit.verdict if supported else "unsupported",
        "needed_bytes": fit.needed_bytes,
        "experts_share": fit.experts_share,
        "generation_tps": None if speed is None else speed.tps,
        "generation_tps_range": None if speed is None else [speed.low_tps, speed.high_tps],
    }


def catalogue_figures(spec: ModelSpec) -> Figures:
    """Take what the catalogue says; look into the file only where that says too little."""
    from moestream.models import ARCHITECTURES

    path = locate(spec)
    if path is not None and None in (spec.architecture, spec.size_bytes, spec.expert_bytes):
        with suppress(MoestreamError):  # a file that is damaged: what opens it will say so
            return file_figures(spec.name, path)
    return Figures(
        spec.name,
        path,
        spec.architecture,
        None if spec.architecture is None else spec.architecture in ARCHITECTURES,
        spec.size_bytes,
        spec.parameters,
        spec.active_parameters,
        spec.expert_bytes,
        spec.expert_bytes_per_token,
        exact=False,
        spec=spec,
    )


def file_figures(name: str, path: Path) -> Figures:
    """Take what the header of a file says.

    Raises:
        ModelFormatError, UnsupportedQuantError: it is no sound GGUF file.
    """
    from moestream.forecast.support import unsupported_reason
    from moestream.gguf import GGUFFile
    from moestream.models.summary import summarize

    with GGUFFile.open(path) as file:
        summary = summarize(file, unsupported_reason(file))
    sizes = summary.sizes
    return Figures(
        name,
        path,
        summary.architecture,
        summary.supported,
        summary.file_bytes,
        sizes.parameters,
        sizes.active_parameters,
        sizes.expert_bytes,
        sizes.expert_bytes_per_token,
        exact=True,
    )


def verdict_told(figures: Figures, estimate: "Estimate") -> str:
    """Say in a few words whether it would run here."""
    if figures.supported is False:
        return "no: architecture" if figures.unknown_architecture else "no: see moestream inspect"
    return fit_told(estimate)


def fit_told(estimate: "Estimate") -> str:
    """The same of one whose architecture runs here."""
    fit = estimate.fit
    if fit.verdict == "streams" and fit.experts_share is not None:
        return f"{100 * fit.experts_share:.0f}% of the experts in memory"
    if fit.needed_bytes is not None and fit.verdict in ("below the floor", "too little"):
        how = "slow" if fit.verdict == "below the floor" else "no"
        return f"{how}: needs {ui.format_memory(fit.needed_bytes)}"
    return {"fits": "all in memory", "unknown": "unknown"}[fit.verdict]


def speed_cell(estimate: "Estimate") -> str:
    """Tokens a second that are expected, or a dash."""
    return "-" if estimate.speed is None else speed_told(estimate.speed.tps)


def bytes_told(n_bytes: int | None) -> str:
    """A size, or a dash."""
    return "-" if n_bytes is None else ui.format_bytes(n_bytes)


def count_told(count: int | None) -> str:
    """A number of parameters, or a dash."""
    return "-" if count is None else ui.format_count(count)
