"""How a model is to be sampled where nobody says so: by its entry in ``models.toml``, and its file.

The file's word goes before that of an entry that moestream comes with, the user's own before both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moestream.catalog.entries import catalog, layers
from moestream.catalog.resolve import find_spec
from moestream.engine.advice import file_advice, read_sampling, sampling_told

if TYPE_CHECKING:
    from moestream.gguf import GGUFHeader


@dataclass(frozen=True, slots=True)
class Advice:
    """Settings by field of ``SamplingParams``, each with who advises it."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def told(self, said: Mapping[str, Any]) -> str | None:
        """What of it counts, in one line; None where nothing does: it was said otherwise."""
        by_origin: dict[str, dict[str, Any]] = {}
        for name, value in self.values.items():
            if name not in said:
                by_origin.setdefault(self.origins[name], {})[name] = value
        parts = [f"{sampling_told(values)} ({origin})" for origin, values in by_origin.items()]
        return f"sampling: {'; '.join(parts)}" if parts else None


def advice(model: str, file: "GGUFHeader") -> Advice:
    """What is advised of a MODEL argument, whose file is open.

    Raises:
        CatalogError: a ``models.toml`` is wrong.
    """
    spec = find_spec(model)
    parts = layers(spec.name) if spec is not None and spec.name in catalog() else []
    shipped = [read_sampling(each.sampling) for each, own in parts if not own]
    mine = [read_sampling(each.sampling) for each, own in parts if own]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, found in (
        ("models.toml", shipped),
        ("its file", [file_advice(file)]),
        ("your models.toml", mine),
    ):
        for each in found:
            values |= each
            origins |= dict.fromkeys(each, f"as {origin} advises")
    return Advice(values, origins)
