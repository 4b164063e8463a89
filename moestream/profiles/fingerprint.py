"""What a profile remembers of its model, and whether another model is that one.

Routing means something only for the experts that it was seen on. The fingerprint tells models of
different shapes or quantisation apart; it does not look at weights, so that a fine-tuned model of
the same shape, whose routing is close, passes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from moestream.errors import ProfileError
from moestream.gguf import GGUFHeader
from moestream.streaming.store import expert_sizes, is_expert_weight


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A model by its shape. ``expert_bytes`` is the size of one expert, by layer with experts.

    ``tensors_sha256`` is of the tensor directory, or None where it was not at hand: then the rest
    alone is compared.
    """

    architecture: str
    num_layers: int
    num_experts: int
    num_experts_per_tok: int
    expert_bytes: Mapping[int, int]
    tensors_sha256: str | None = None

    @classmethod
    def of(cls, file: GGUFHeader) -> "Fingerprint":
        """Take a model file's.

        Raises:
            ProfileError: it has no experts.
            ModelFormatError: it does not say how many experts a token uses.
        """
        sizes = expert_sizes(file)
        if not sizes:
            raise ProfileError(f"{file.path}: has no experts, so there is nothing to profile")
        architecture = file.get("general.architecture", str)
        experts = next(info for name, info in file.tensors.items() if is_expert_weight(name))
        return cls(
            architecture=architecture,
            num_layers=file.get(f"{architecture}.block_count", int),
            num_experts=experts.shape[0],
            num_experts_per_tok=file.get(f"{architecture}.expert_used_count", int),
            expert_bytes=sizes,
            tensors_sha256=directory_hash(file),
        )

    @property
    def total_bytes(self) -> int:
        """Bytes of all experts of all layers."""
        return self.num_experts * sum(self.expert_bytes.values())

    def difference(self, other: "Fingerprint") -> str | None:
        """Say in words what tells two models apart; None if nothing does."""
        for name in ("architecture", "num_layers", "num_experts", "num_experts_per_tok"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                return f"{name} is {mine!r} there and {its!r} here"
        if dict(self.expert_bytes) != dict(other.expert_bytes):
            return "the experts' sizes or layers differ: another quantisation, most likely"
        hashes = {self.tensors_sha256, other.tensors_sha256} - {None}
        if len(hashes) > 1:
            return "the tensors differ: another quantisation or another model of that shape"
        return None


def directory_hash(file: GGUFHeader) -> str:
    """SHA-256 of names, types and shapes, by name: the same however a model is split."""
    lines = sorted(f"{info.name} {info.type.name} {info.shape}" for info in file.tensors.values())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
