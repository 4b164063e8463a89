"""What a GGUF file is, in numbers, read off its header alone.

Owns the sums: bytes and parameters, dense and expert, in all and for one token. Goes by metadata
keys and tensor names that all architectures share, so that a model which cannot run here can be
looked at too; a key that is missing or odd gives None. Knows nothing of how it is shown.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gguf.constants import LlamaFileType

from moestream.errors import MoestreamError
from moestream.gguf import GGUFHeader, TensorInfo
from moestream.layers.weights import PER_LAYER
from moestream.models import ARCHITECTURES, used_names
from moestream.streaming.store import is_expert_weight, used_tensors

Dimension = int | list[int] | None
"""A number, or one for each layer, or nothing that makes sense."""

_SPECIAL_ID = re.compile(r"tokenizer\.ggml\.(\w+)_token_id")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the tensors take. The per-token figures are of routed experts, all layers together."""

    dense_bytes: int
    table_bytes: int
    """Of a table that is read by row, and is none of the dense weights."""
    expert_bytes: int
    expert_bytes_per_token: int | None
    parameters: int
    active_parameters: int | None

    @property
    def total_bytes(self) -> int:
        """Of all weights."""
        return self.dense_bytes + self.table_bytes + self.expert_bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions that the metadata names."""

    num_layers: Dimension
    num_moe_layers: int
    hidden_size: Dimension
    num_heads: Dimension
    num_kv_heads: Dimension
    context_length: Dimension
    num_experts: Dimension
    num_experts_per_tok: Dimension


@dataclass(frozen=True, slots=True)
class QuantSummary:
    """What is stored in one quantisation type."""

    type: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TokenizerSummary:
    """The tokenizer's metadata; ``special_ids`` goes by the key's name, such as ``bos``."""

    model: str | None
    pre: str | None
    vocab_size: int
    special_ids: dict[str, int]
    chat_template: bool


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model file. What it does not say is None; sizes of what it lacks are 0."""

    path: str
    file_bytes: int
    shards: list[str]
    gguf_version: int
    name: str | None
    architecture: str | None
    supported: bool
    unsupported_reason: str | None
    file_type: str | None
    sizes: Sizes
    shape: Shape
    quantisation: list[QuantSummary]
    tokenizer: TokenizerSummary


def summarize(file: GGUFHeader, reason: str | None = None) -> ModelSummary:
    """Sum up an open file; ``reason`` is why it cannot run here, beside what is known here.

    Of a model that can be built, tensors that it does not use are not counted.
    """
    own_reason = unsupported_reason(file)
    used, counted = list(used_tensors(file)), list(file.tensors.values())
    if own_reason is None:
        names = used_names(file)
        used = counted = [info for info in used if info.name in names]
    reason = own_reason or reason
    return ModelSummary(
        path=str(file.path),
        file_bytes=file.n_bytes,
        shards=[shard.name for shard in file.shards],
        gguf_version=file.version,
        name=_text(file, "general.name"),
        architecture=_text(file, "general.architecture"),
        supported=reason is None,
        unsupported_reason=reason,
        file_type=_file_type(file),
        sizes=_sizes(file, counted, used),
        shape=_shape(file, used),
        quantisation=_quantisation(file.tensors.values()),
        tokenizer=_tokenizer(file),
    )


def unsupported_reason(file: GGUFHeader) -> str | None:
    """Say why no model can be built of the file here, or None if its header says that one can.

    Whether there is a tokenizer for it, ``forecast.support`` says.
    """
    if not file.tensors:
        return "no tensors: a vocabulary only"
    architecture = _text(file, "general.architecture")
    if architecture not in ARCHITECTURES:
        return f"architecture {architecture!r}; supported are {', '.join(ARCHITECTURES)}"
    try:
        used_names(file)
    except MoestreamError as error:
        return str(error)
    return None


def _sizes(file: GGUFHeader, counted: list[TensorInfo], used: list[TensorInfo]) -> Sizes:
    experts = [info for info in used if is_expert_weight(info.name)]
    expert_bytes = sum(info.n_bytes for info in counted if is_expert_weight(info.name))
    parameters = sum(math.prod(info.shape) for info in counted)
    active_bytes = active_parameters = None
    k = _dimension(file, "expert_used_count")
    if not experts:
        k = 0
    if isinstance(k, int):
        dense = [
            info for info in used if not is_expert_weight(info.name) and info.name != PER_LAYER
        ]
        active_bytes = sum(info.n_bytes // info.shape[0] * k for info in experts)
        active_parameters = sum(math.prod(info.shape) for info in dense)
        active_parameters += sum(math.prod(info.shape[1:]) * k for info in experts)
    table_bytes = sum(info.n_bytes for info in counted if info.name == PER_LAYER)
    return Sizes(
        dense_bytes=sum(info.n_bytes for info in counted) - expert_bytes - table_bytes,
        table_bytes=table_bytes,
        expert_bytes=expert_bytes,
        expert_bytes_per_token=active_bytes,
        parameters=parameters,
        active_parameters=active_parameters,
    )


def _shape(file: GGUFHeader, used: list[TensorInfo]) -> Shape:
    expert_layers = {info.name.split(".")[1] for info in used if is_expert_weight(info.name)}
    return Shape(
        num_layers=_dimension(file, "block_count"),
        num_moe_layers=len(expert_layers),
        hidden_size=_dimension(file, "embedding_length"),
        num_heads=_dimension(file, "attention.head_count"),
        num_kv_heads=_dimension(file, "attention.head_count_kv"),
        context_length=_dimension(file, "context_length"),
        num_experts=_dimension(file, "expert_count"),
        num_experts_per_tok=_dimension(file, "expert_used_count"),
    )


def _quantisation(tensors: Iterable[TensorInfo]) -> list[QuantSummary]:
    """Totals by type, most bytes first."""
    by_type: dict[str, list[TensorInfo]] = {}
    for info in tensors:
        by_type.setdefault(info.type.name, []).append(info)
    totals = [
        QuantSummary(
            type=name,
            tensors=len(infos),
            parameters=sum(math.prod(info.shape) for info in infos),
            bytes=sum(info.n_bytes for info in infos),
        )
        for name, infos in by_type.items()
    ]
    return sorted(totals, key=lambda total: -total.bytes)


def _tokenizer(file: GGUFHeader) -> TokenizerSummary:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    special_ids = {
        match[1]: value
        for key, value in file.metadata.items()
        if (match := _SPECIAL_ID.fullmatch(key)) and isinstance(value, int)
    }
    return TokenizerSummary(
        model=_text(file, "tokenizer.ggml.model"),
        pre=_text(file, "tokenizer.ggml.pre"),
        vocab_size=len(tokens) if isinstance(tokens, list) else 0,
        special_ids=special_ids,
        chat_template="tokenizer.chat_template" in file.metadata,
    )


def _file_type(file: GGUFHeader) -> str | None:
    """The mixture that the file was quantised to, such as ``Q4_K_M``."""
    number = file.metadata.get("general.file_type")
    names = [member.name for member in LlamaFileType if member.value == number]
    return names[0].removeprefix("MOSTLY_") if names else None


def _text(file: GGUFHeader, key: str) -> str | None:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else None


def _dimension(file: GGUFHeader, key: str) -> Dimension:
    value = file.metadata.get(f"{file.metadata.get('general.architecture')}.{key}")
    if isinstance(value, list):
        whole = [item for item in value if isinstance(item, int)]
        return whole if whole and len(whole) == len(value) else None
    return value if isinstance(value, int) else None
