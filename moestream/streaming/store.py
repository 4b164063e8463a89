"""Where the experts' bytes lie: which shard, from which offset, how many.

Owns the descriptors that experts are read through and the check that the files behind them are
still those that were opened. Knows nothing of memory, of what is read when, or of what the bytes
mean.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from moestream.closing import Closing
from moestream.errors import ModelFormatError, ModelNotFoundError
from moestream.gguf import GGUFFile, GGUFHeader, TensorInfo

_SEPARATE = ("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")
_FUSED = ("ffn_gate_up_exps.weight", "ffn_down_exps.weight")
_UNGATED = ("ffn_up_exps.weight", "ffn_down_exps.weight")
_WEIGHTS = tuple(f".{name}" for name in {*_SEPARATE, *_FUSED})


class ExpertKey(NamedTuple):
    """An expert by its place in the model. Where speed counts it is ``ExpertStore.key``'s int."""

    layer: int
    expert: int


class Segment(NamedTuple):
    """One matrix of one expert, or two where the file fuses gate and up."""

    shard: int
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class LayerExperts:
    """A layer's expert tensors: gate, up and down, or the fused gate-and-up and down.

    Experts without a gate have up and down; what is said of gates is then said of up.
    """

    tensors: tuple[TensorInfo, ...]

    @property
    def part_bytes(self) -> tuple[int, int, int]:
        """Bytes of gate, up and down of one expert."""
        sizes = [tensor.n_bytes // tensor.shape[0] for tensor in self.tensors]
        if len(sizes) == 2:
            first = sizes[0] // 2 if self._fused else sizes[0]
            sizes = [first, first, sizes[1]]
        gate, up, down = sizes
        return gate, up, down

    @property
    def up_offset(self) -> int | None:
        """Where up begins in the tensor that the gate begins; None if it is another."""
        if len(self.tensors) == 3:
            return None
        return self.part_bytes[0] if self._fused else 0

    @property
    def _fused(self) -> bool:
        return self.tensors[0].name.endswith(_FUSED[0])

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert."""
        return sum(tensor.n_bytes // tensor.shape[0] for tensor in self.tensors)

    def segments(self, expert: int) -> tuple[Segment, ...]:
        """Where each tensor keeps this expert."""
        return tuple(
            Segment(tensor.shard, tensor.offset + expert * size, size)
            for tensor in self.tensors
            for size in [tensor.n_bytes // tensor.shape[0]]
        )


class ExpertStore(Closing):
    """All routed experts of a model file. A context manager; ``close`` closes its descriptors."""

    def __init__(self, file: GGUFFile) -> None:
        """Find the experts and open their files for reading.

        Raises:
            ModelFormatError: a file is not the one that was mapped, or layers disagree on how
                many experts there are.
        """
        self.file = file
        self.layers: Mapping[int, LayerExperts] = dict(_find_layers(file))
        counts = {info.tensors[0].shape[0] for info in self.layers.values()}
        if len(counts) > 1:
            raise ModelFormatError(
                f"{file.path}: layers have different numbers of experts, {sorted(counts)}; "
                "one number was expected"
            )
        self.num_experts = counts.pop() if counts else 0
        self._descriptors: list[int] = []
        try:
            for path in file.shards:
                self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise ModelNotFoundError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    @property
    def num_keys(self) -> int:
        """One more than the largest key."""
        return (max(self.layers) + 1) * self.num_experts if self.layers else 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all experts."""
        return self.num_experts * sum(layer.expert_bytes for layer in self.layers.values())

    def token_bytes(self, num_experts_per_tok: int) -> int:
        """Bytes of one token's experts: with less memory than that, nothing is found again."""
        return num_experts_per_tok * sum(layer.expert_bytes for layer in self.layers.values())

    def key(self, layer: int, expert: int) -> int:
        """The number of an expert among all."""
        return layer * self.num_experts + expert

    def segments(self, key: ExpertKey) -> tuple[Segment, ...]:
        """The byte ranges of an expert."""
        return self.layers[key.layer].segments(key.expert)

    def descriptor(self, shard: int) -> int:
        """An open descriptor of a shard, this object's own."""
        return self._descriptors[shard]

    def check(self) -> None:
        """Make sure that no file was cut short or written to since it was mapped.

        A file that was *replaced* is still there for who holds it open, and does no harm.

        Raises:
            ModelFormatError: one was; to touch its mapping could now kill the process.
        """
        for path, fd, then in zip(
            self.file.shards, self._descriptors, self.file.statuses, strict=True
        ):
            now = os.fstat(fd)
            if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
                raise ModelFormatError(f"{path}: was replaced while it was opened; open it again")
            if now.st_size != then.st_size:
                raise ModelFormatError(
                    f"{path}: had {then.st_size} bytes when it was opened and has {now.st_size} "
                    "now; leave a model's file alone while it runs, and open it again"
                )
            if now.st_mtime_ns != then.st_mtime_ns:
                raise ModelFormatError(
                    f"{path}: was written to since it was opened; leave a model's file alone "
                    "while it runs, and open it again"
                )

    def close(self) -> None:
        """Close the descriptors."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def expert_sizes(file: GGUFHeader) -> dict[int, int]:
    """Bytes of one routed expert, by layer; layers without any are left out."""
    return {layer: experts.expert_bytes for layer, experts in _find_layers(file)}


def is_expert_weight(name: str) -> bool:
    """Whether a tensor holds routed experts' weights.

    Their biases and scales (``ffn_down_exps.bias``, ``ffn_down_exps.scale``) are none: those are
    small, and loaded with the dense weights.
    """
    return name.endswith(_WEIGHTS)


def used_tensors(file: GGUFHeader) -> Iterator[TensorInfo]:
    """The tensors that a model is run with.

    Not those of the last layers that predict further tokens, which are loaded by themselves.
    """
    prefix = file.metadata.get("general.architecture")
    layers, extra = (
        file.metadata.get(f"{prefix}.{key}") for key in ("block_count", "nextn_predict_layers")
    )
    own = layers - extra if isinstance(layers, int) and isinstance(extra, int) else None
    for name, info in file.tensors.items():
        block = name.removeprefix("blk.").partition(".")[0]
        if own is None or not block.isdecimal() or int(block) < own:
            yield info


def _find_layers(file: GGUFHeader) -> Iterator[tuple[int, LayerExperts]]:
    """Layers with experts, in order."""
    found: dict[int, tuple[str, ...]] = {}
    for name in (info.name for info in used_tensors(file)):
        block, _, rest = name.removeprefix("blk.").partition(".")
        if block.isdecimal() and rest == _SEPARATE[-1]:
            layouts: tuple[tuple[str, ...], ...] = (_FUSED, _SEPARATE, _UNGATED)
            there = (names for names in layouts if f"blk.{block}.{names[0]}" in file.tensors)
            found[int(block)] = next(there, _SEPARATE)
    for layer in sorted(found):
        names = [f"blk.{layer}.{name}" for name in found[layer]]
        missing = [name for name in names if name not in file.tensors]
        if missing:
            raise ModelFormatError(f"{file.path}: tensor {missing[0]!r} is missing")
        yield layer, LayerExperts(tuple(file.tensors[name] for name in names))
