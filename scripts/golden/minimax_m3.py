"""Golden models of MiniMax-M3: attention to blocks that each key/value head chooses.

llama.cpp chooses with flash attention alone, which rounds keys and values of leading layers to half
precision. So `minimax-m3` has none of these, and `minimax-m3-lead` chooses everything.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from golden.assembled import Assembled
from golden.files import TensorSpec
from golden.keys import add_sigmoid
from golden.recipe import EXPERTS, KV_HEADS

INDEX, BLOCK, CHOSEN = 16, 4, 3
ALL = 16  # blocks of four, of 64 tokens


def _keys(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_leading_dense_block_count(model.lead)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(model.width)
    add_sigmoid(writer, 1.8)
    writer.add_indexer_head_count(KV_HEADS)
    writer.add_indexer_key_length(INDEX)
    writer.add_indexer_top_k(ALL if model.lead else CHOSEN)
    writer.add_uint32("minimax-m3.attention.indexer.block_size", BLOCK)
    writer.add_uint32("minimax-m3.attention.indexer.local_blocks", 1)


def _indexer(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    if layer < model.lead:
        return
    std = model.hidden**-0.5
    yield "indexer.q_proj.weight", (KV_HEADS * INDEX, model.hidden), std
    yield "indexer.k_proj.weight", (INDEX, model.hidden), std
    yield "indexer.q_norm.weight", (INDEX,), 0.3
    yield "indexer.k_norm.weight", (INDEX,), 0.3


M3 = {"arch": "minimax-m3", "keys": _keys, "own": _indexer, "qk_norm": True}
M3 |= {"selection_bias": "exp_probs_b.bias"}
BLOCKS = {"head_dim": 32, "dense_width": 64, "width": 32, "shared": 32, "used": EXPERTS}

MINIMAX_M3_MODELS: tuple[Assembled, ...] = (
    Assembled("minimax-m3", seed=831, turned=12, shared=16, **M3),
    Assembled("minimax-m3-lead", seed=833, layers=6, lead=3, turned=12, shared=16, **M3),
    Assembled("minimax-m3-q8_0", seed=832, types=("Q8_0",), lead=1, turned=16, **BLOCKS, **M3),
)
