"""Golden models of GLM-5.3 Flash: Kimi's delta rule and latent attention around mixed streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import TensorSpec
from golden.keys import Indexer
from golden.kimi import BLOCKS, GoldenKimi
from golden.parts import INDEX_HEADS
from golden.recipe import HEADS

INDEXER = Indexer(12, 16)
STREAMS = 4  # as llama.cpp wants
UNQUANTISED = (
    *("hc_", "indexer", "ssm_f", "ssm_g", "ssm_beta"),
    *("attn_kv_a_mqa", "attn_k_b", "attn_v_b"),
)
"""What llama.cpp's quantiser leaves as it is, and would not write as F32 either."""


def add_streams(writer: gguf.GGUFWriter, arch: str) -> None:
    """Add the keys of streams that are mixed."""
    writer.add_uint32(f"{arch}.hyper_connection.count", STREAMS)
    writer.add_uint32(f"{arch}.hyper_connection.sinkhorn_iterations", 3)
    writer.add_float32(f"{arch}.hyper_connection.epsilon", 0.05)


def mixed_streams(hidden: int) -> Iterator[TensorSpec]:
    """What both branches of a layer read and write by."""
    for branch in ("attn", "ffn"):
        wide, rows = STREAMS * hidden, (2 + STREAMS) * STREAMS
        yield f"hc_{branch}_fn.weight", (rows, wide), wide**-0.5
        yield f"hc_{branch}_base.weight", (rows,), 0.5
        yield f"hc_{branch}_scale.weight", (3,), 1.0


@dataclass(frozen=True, slots=True)
class GLM5Next(GoldenKimi):
    """`indexer` chooses blocks of `pool` positions; layers in `borrow` go by others' choice."""

    turned: int = 0
    rank: int = 16
    indexer: Indexer = INDEXER
    pool: int = 3
    borrow: tuple[int, ...] = ()
    unquantised: tuple[str, ...] = UNQUANTISED

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        GoldenKimi.metadata(self, writer)
        prefix = f"{self.arch}.attention.indexer"
        writer.add_float32(f"{self.arch}.kda.gate_lower_bound", -5.0)
        writer.add_layer_norm_eps(1e-6)
        limits = [0.6, 0.5, 0.0, 0.4, 0.5, 0.7][: self.layers]
        writer.add_swiglu_clamp_exp(limits)
        writer.add_swiglu_clamp_shexp([limit + 0.1 for limit in limits])
        self.indexer.add(writer)
        writer.add_uint32(f"{prefix}.kpool", self.pool)
        writer.add_bool(f"{prefix}.kpool_select_tail", True)
        own = [layer not in self.borrow for layer in range(self.layers)]
        writer.add_array(f"{prefix}.types", own)
        add_streams(writer, self.arch)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """What Kimi Linear has, and what is about it."""
        yield from mixed_streams(self.hidden)
        for name, shape, std in GoldenKimi.parts(self, layer):
            yield name, (HEADS,) if name == "ssm_a" else shape, std
        if self.kinds[layer] == "A" and layer not in self.borrow:
            yield from self._indexer()

    def _indexer(self) -> Iterator[TensorSpec]:
        hidden, std = self.hidden, self.hidden**-0.5
        yield "indexer.k_norm.weight", (self.indexer.length,), 0.3
        yield "indexer.k_norm.bias", (self.indexer.length,), 0.3
        yield "indexer.proj.weight", (INDEX_HEADS, hidden), std
        yield "indexer.attn_k.weight", (self.indexer.length, hidden), std
        yield (
            "indexer.attn_q_b.weight",
            (INDEX_HEADS * self.indexer.length, self.rank),
            self.rank**-0.5,
        )
        yield "indexer_compressor_gate.weight", (self.indexer.length, hidden), std
        yield "indexer_compressor_ape.weight", (self.pool, self.indexer.length), 0.5


WHOLE = BLOCKS | {"rank": 32, "indexer": Indexer(64, 32), "pool": 4}
GLM5_NEXT_MODELS: tuple[GLM5Next, ...] = (
    GLM5Next("glm5-next", "glm5-next", 811, kinds="KAKAKA", borrow=(3,)),
    GLM5Next("glm5-next-q8_0", "glm5-next", 812, ("Q8_0",), kinds="KKA", **WHOLE),
)
