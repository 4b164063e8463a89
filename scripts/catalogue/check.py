"""Checks the models that moestream comes with: whether what models.toml says can be, and is.

    python scripts/catalogue/check.py
    python scripts/catalogue/check.py --online

Without a network: the architecture runs here, the quantisation is a known type, the figures go
together, and it is said where they come from. With ``--online`` the hub is asked for each file's
size, and its header is read for the rest; a line tells of each difference. Exits with 1 if there
are any.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from moestream.catalog import ModelSpec
from moestream.catalog.entries import shipped_catalog
from moestream.errors import MoestreamError
from moestream.forecast.demand import read_demand
from moestream.forecast.estimate import kernel_type
from moestream.gguf import GGUFHeader
from moestream.hub import parse_reference
from moestream.hub.remote_header import fetch_header
from moestream.hub.repository import look_up
from moestream.models import ARCHITECTURES, read_config
from moestream.quants import GGMLQuantizationType, block_layout

NEEDED = (
    *("description", "licence", "published", "architecture", "parameters", "active_parameters"),
    *("num_moe_layers", "num_experts", "num_experts_per_tok"),
    *("hidden_size", "moe_intermediate_size"),
)
SIZE = (0.85, 1.35)
"""Times the bits of most weights that a file has for each: some weights have more, or fewer."""
UNEVEN = {"Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
"""What rows may be in whose length is no multiple of 256: types of blocks of 32."""
EXPERTS = (0.6, 1.0)
"""Part of a mixture's parameters that are its experts'."""
NEAR = 0.01
"""Part by which a size that a listing shows rounded may be off."""


def problems(specs: Iterable[ModelSpec]) -> Iterator[str]:
    """What cannot be, of all models together."""
    seen: dict[str, str] = {}
    for spec in specs:
        for problem in problems_of(spec):
            yield f"{spec.name}: {problem}"
        if spec.source in seen:
            yield f"{spec.name}: has the source of {seen[spec.source]}"
        seen[spec.source] = spec.name


def problems_of(spec: ModelSpec) -> Iterator[str]:
    """What cannot be, of one."""
    missing = [name for name in NEEDED if not getattr(spec, name)]
    if missing:
        yield f"says nothing of {', '.join(missing)}"
        return
    if spec.architecture not in ARCHITECTURES:
        yield f"architecture {spec.architecture!r} does not run here"
    if spec.kind == "hf":
        yield from _problems_of_file(spec)
    yield from _problems_of_shape(spec)


def _problems_of_file(spec: ModelSpec) -> Iterator[str]:
    reference = parse_reference(spec.source)
    if not reference.names_file:
        yield f"{spec.source} names no file, so its size may be another's"
    kernel = kernel_type(spec.what)
    if kernel is None:
        yield f"{spec.source} names no known quantisation"
        return
    if spec.size_bytes is None:  # no listing was at hand
        return
    told = 8 * spec.size_bytes / (spec.parameters or 1)
    usual = [_bits(kernel)]
    if any((width or 0) % 256 for width in (spec.hidden_size, spec.moe_intermediate_size)):
        usual.append(_bits(UNEVEN.get(kernel, kernel)))
    if not SIZE[0] * min(usual) <= told <= SIZE[1] * max(usual):
        yield f"{told:.2f} bits a parameter are not {kernel}, which has {usual[0]:.2f}"


def _bits(kernel: str) -> float:
    weights, n_bytes = block_layout(GGMLQuantizationType[kernel])
    return 8 * n_bytes / weights


def _problems_of_shape(spec: ModelSpec) -> Iterator[str]:
    one = spec.parameters_per_expert or 0
    chosen = one * (spec.num_moe_layers or 0) * (spec.num_experts_per_tok or 0)
    share = one * (spec.num_moe_layers or 0) * (spec.num_experts or 0) / (spec.parameters or 1)
    if not EXPERTS[0] <= share <= EXPERTS[1]:
        yield f"its experts would have {share:.0%} of its parameters"
    if chosen > (spec.active_parameters or 0):
        yield f"a token's experts have {chosen:,} parameters, more than all that are active"


def differences(spec: ModelSpec) -> Iterator[str]:
    """What the hub says otherwise.

    Raises:
        MoestreamError: the hub cannot be asked, or has no such file.
    """
    listing, model = look_up(parse_reference(spec.source))
    size = listing.size_bytes(model)
    if spec.size_bytes is None or abs(size - spec.size_bytes) > _slack(spec.size_bytes):
        yield f"size_bytes is {size:_}, not {spec.size_bytes}"
    header = fetch_header(listing, model)
    for name, found in _figures(header).items():
        if getattr(spec, name) != found:
            yield f"{name} is {found}, not {getattr(spec, name)}"


def _slack(size_bytes: int) -> float:
    return 0 if size_bytes % 10_000_000 else NEAR * size_bytes


def _figures(header: GGUFHeader) -> dict[str, int | str | None]:
    """What a file says of what the catalogue says too."""
    config = read_config(header)
    return {
        "architecture": header.get("general.architecture", str),
        "num_moe_layers": read_demand(header).num_moe_layers,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "hidden_size": config.hidden_size,
        "moe_intermediate_size": config.moe_intermediate_size,
    }


def _online(specs: Iterable[ModelSpec]) -> Iterator[str]:
    for spec in specs:
        if spec.kind != "hf":
            continue
        try:
            yield from (f"{spec.name}: {each}" for each in differences(spec))
        except MoestreamError as error:
            yield f"{spec.name}: {error}"


def main() -> int:
    """Print what is wrong; the exit status says whether anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--online", action="store_true", help="ask the hub too")
    specs = list(shipped_catalog().values())
    wrong = list(problems(specs))
    if parser.parse_args().online:
        wrong += _online(specs)
    for line in wrong:
        print(line)
    print(f"{len(specs)} models, {len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
