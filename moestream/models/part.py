"""Which tensors a part of a model's layers is made of, where machines share a model."""

from collections.abc import Iterable

from moestream.layers.weights import EMBEDDING, OUTPUT

_ENDS = (EMBEDDING, OUTPUT, "output.bias", "output_norm.weight", "output_norm.bias")


def layer_of(name: str) -> int | None:
    """The layer that a tensor is of; None of one that is of none."""
    block, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if block == "blk" else None


def names_of(part: range, names: Iterable[str]) -> set[str]:
    """Those of the layers, and what all need; with the first layer, the ends of the model too."""
    ends = () if part.start == 0 else _ENDS
    return {
        name
        for name in names
        if name not in ends and ((layer := layer_of(name)) is None or layer in part)
    }
