"""Golden models of Qwen3.8: streams, a table of n-grams, and attention to chosen blocks.

The delta nets, attention and experts are Qwen3.5's, without norms before them. llama.cpp chooses
parts of a block where the last one is not whole; blocks of one token leave it nothing to part, so
`qwen4exp` has those, and `BLOCKS` others that the tests compare where llama.cpp cuts none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gguf

from golden.files import Model, TensorSpec
from golden.parts import INDEX_HEADS
from golden.qwen3next import GoldenHybrid

STREAMS = 3
GRAM, KERNEL = 3, 4
GRAM_LAYER = 2
END = 2  # among the tokens that models are run on, more than once
VOCABS = (97, 101, 103, 107)  # of the heads that look a gram up
MULTIPLIERS = (35184372088891, 35184372088951, 35184372089041)  # of 45 bits, as the real ones
NORMS = ("attn_norm.weight", "post_attention_norm.weight")


@dataclass(frozen=True, slots=True)
class Qwen4Exp(GoldenHybrid):
    """`ratios` are how many tokens a block has, layer by layer, 0 where all are attended to.

    `chosen` tokens are, otherwise. Router weights are `gap` times as large as they would be.
    """

    hidden: int = 32
    head_dim: int = 16
    shared: int = 24
    chosen: int = 12
    index: int = 24
    rank: int = 12
    heads_per_gram: int = 2
    ratios: tuple[int, ...] = field(kw_only=True)
    gap: int = 1

    @property
    def vocabs(self) -> tuple[int, ...]:
        """Rows that each head looks grams up in."""
        return VOCABS[: (GRAM - 1) * self.heads_per_gram]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        GoldenHybrid.metadata(self, writer)
        prefix, wide = self.arch, gguf.GGUFValueType.UINT64
        writer.add_uint32(f"{prefix}.hyper_connection.count", STREAMS)
        writer.add_uint32(f"{prefix}.hyper_connection.low_rank", self.rank)
        writer.add_indexer_head_count(INDEX_HEADS)
        writer.add_indexer_key_length(self.index)
        writer.add_indexer_top_k(self.chosen)
        writer.add_array(f"{prefix}.attention.compress_ratios", list(self.ratios))
        writer.add_array(f"{prefix}.ple.layers", [GRAM_LAYER])
        writer.add_uint32(f"{prefix}.ple.ngram_size", GRAM)
        writer.add_uint32(f"{prefix}.ple.heads_per_ngram", self.heads_per_gram)
        writer.add_uint32(f"{prefix}.ple.conv_kernel", KERNEL)
        writer.add_uint32(f"{prefix}.ple.eos_token_id", END)
        writer.add_embedding_length_per_layer_input(self.hidden // len(self.vocabs))
        offsets = [sum(VOCABS[:head]) for head in range(len(self.vocabs))]
        listed = {"layer_multipliers": MULTIPLIERS, "head_offsets": offsets}
        for key, values in (listed | {"head_vocab_sizes": self.vocabs}).items():
            name = f"{prefix}.ple.{key}"
            writer.add_key_value(name, list(values), gguf.GGUFValueType.ARRAY, sub_type=wide)

    def outside(self) -> Iterator[TensorSpec]:
        """Tensors of no layer: the last streams have no other norm."""
        for spec in GoldenHybrid.outside(self):
            if spec[0] != "output_norm.weight":
                yield spec
        yield from self._streams("output_hc", writes=False)
        rows = sum(self.vocabs) + 3  # the converter fills up
        yield "per_layer_token_embd.weight", (rows, self.hidden // len(self.vocabs)), 1.0

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """What Qwen3.5 has, and what is about it."""
        for branch in ("attn", "ffn"):
            yield from self._streams(f"hc_{branch}", writes=True)
        for name, shape, std in GoldenHybrid.parts(self, layer):
            if name not in NORMS:
                yield name, shape, std * (self.gap if name == "ffn_gate_inp.weight" else 1)
        if not self.recurrent[layer]:
            yield from self._indexer()
        if layer == GRAM_LAYER:
            yield from self._grams()

    def _streams(self, name: str, *, writes: bool) -> Iterator[TensorSpec]:
        wide = STREAMS * self.hidden
        yield f"{name}_norm.weight", (wide,), 0.3
        yield f"{name}_down.weight", (self.rank, wide), 2 * wide**-0.5
        yield f"{name}_up.weight", (wide, self.rank), 2 * self.rank**-0.5
        if writes:
            yield f"{name}_inject.weight", (STREAMS, wide), 2 * wide**-0.5

    def _indexer(self) -> Iterator[TensorSpec]:
        std = self.hidden**-0.5
        yield "indexer.q_proj.weight", (INDEX_HEADS * self.index, self.hidden), std
        yield "indexer.k_proj.weight", (self.index, self.hidden), std
        yield "indexer.q_norm.weight", (self.index,), 0.3
        yield "indexer.k_norm.weight", (self.index,), 0.3

    def _grams(self) -> Iterator[TensorSpec]:
        hidden, wide = self.hidden, STREAMS * self.hidden
        yield "ple_key.weight", (wide, hidden), hidden**-0.5
        yield "ple_value.weight", (hidden, hidden), hidden**-0.5
        for norm in ("key", "query", "conv"):
            yield f"ple_norm_{norm}.weight", (wide,), 1.0
        yield "ple_conv1d.weight", (wide, KERNEL), 0.5


BLOCKS = Qwen4Exp(
    "qwen4exp-blocks", "qwen4exp", 803, layers=4, every=4, chosen=16, ratios=(0, 0, 0, 4)
)
WIDE = {
    "hidden": 64,
    "width": 32,
    "shared": 32,
    "dim": 32,
    "head_dim": 32,
    "chosen": 64,
    "index": 32,
}
NARROW = {"gap": 4, "rank": 32, "heads_per_gram": 1}
QWEN4EXP_MODELS: tuple[Model, ...] = (
    Qwen4Exp("qwen4exp", "qwen4exp", 801, layers=6, ratios=(0, 1, 0, 1, 0, 1)),
    Qwen4Exp(
        "qwen4exp-q8_0", "qwen4exp", 802, ("Q8_0",), layers=4, ratios=(0, 4, 0, 0), **WIDE, **NARROW
    ),
)  # fmt: skip
