"""Tensors that layers of several golden models have: norms, attention, experts.

Knows no architecture: sizes are told, and names are those that llama.cpp gives them in a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from golden.files import TensorSpec
from golden.recipe import Recipe

INDEX_HEADS, INDEX = 12, 64  # llama.cpp turns index keys in blocks of 64


def norms(hidden: int, *names: str) -> Iterator[TensorSpec]:
    """The weights of norms of whole rows."""
    for name in names:
        yield f"{name}.weight", (hidden,), 0.3


def head_norms(query: int, key: int) -> Iterator[TensorSpec]:
    """The weights of norms of queries and of keys."""
    yield "attn_q_norm.weight", (query,), 0.3
    yield "attn_k_norm.weight", (key,), 0.3


def projections(
    hidden: int, query: int, key: int, *, value: int = 0, biases: bool = False
) -> Iterator[TensorSpec]:
    """Queries, keys and values, these as wide as keys unless told."""
    for name, rows in (("attn_q", query), ("attn_k", key), ("attn_v", value or key)):
        yield f"{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
        if biases:
            yield f"{name}.bias", (rows,), 0.5


def attention(
    hidden: int, query: int, key: int, *, biases: bool = False, between: Iterable[TensorSpec] = ()
) -> Iterator[TensorSpec]:
    """Projections, what is `between` them and the output, and the output."""
    yield from projections(hidden, query, key, biases=biases)
    yield from between
    yield "attn_output.weight", (hidden, query), query**-0.5


def narrow_queries(hidden: int, rank: int, queries: int) -> Iterator[TensorSpec]:
    """Queries from a narrow row."""
    yield "attn_q_a.weight", (rank, hidden), hidden**-0.5
    yield "attn_q_a_norm.weight", (rank,), 0.3
    yield "attn_q_b.weight", (queries, rank), 0.5 * rank**-0.5


def latent_row(hidden: int, latent: int, turned: int) -> Iterator[TensorSpec]:
    """The row that keys and values come from, and what RoPE turns."""
    yield "attn_kv_a_mqa.weight", (latent + turned, hidden), hidden**-0.5
    yield "attn_kv_a_norm.weight", (latent,), 0.3


def latent_heads(heads: int, latent: int, plain: int, value: int) -> Iterator[TensorSpec]:
    """Keys and values of all heads from that row."""
    yield "attn_k_b.weight", (heads, latent, plain), 0.5 * latent**-0.5
    yield "attn_v_b.weight", (heads, value, latent), 0.5 * latent**-0.5


def indexer(hidden: int, rank: int) -> Iterator[TensorSpec]:
    """What chooses the tokens that are attended to."""
    yield "indexer.k_norm.weight", (INDEX,), 0.3
    yield "indexer.k_norm.bias", (INDEX,), 0.3
    yield "indexer.proj.weight", (INDEX_HEADS, hidden), hidden**-0.5
    yield "indexer.attn_k.weight", (INDEX, hidden), hidden**-0.5
    yield "indexer.attn_q_b.weight", (INDEX_HEADS * INDEX, rank), rank**-0.5


def swiglu(hidden: int, width: int, suffix: str = "", experts: int = 0) -> Iterator[TensorSpec]:
    """The three matrices of a feed-forward network, or of `experts` of them together."""
    many = (experts,) if experts else ()
    yield f"ffn_gate{suffix}.weight", (*many, width, hidden), hidden**-0.5
    yield f"ffn_up{suffix}.weight", (*many, width, hidden), hidden**-0.5
    yield f"ffn_down{suffix}.weight", (*many, hidden, width), 1.5 * width**-0.5


def router(model: Recipe, bias: float = 0.0) -> Iterator[TensorSpec]:
    """What chooses experts; `bias` is the deviation of what is added to choose alone."""
    yield "ffn_gate_inp.weight", (model.experts, model.hidden), model.hidden**-0.5
    if bias:
        yield "exp_probs_b.bias", (model.experts,), bias


def mixture(model: Recipe, *, bias: float = 0.0, shared: int = 0) -> Iterator[TensorSpec]:
    """Router, experts, and a shared one of the width `shared`."""
    yield from router(model, bias)
    yield from swiglu(model.hidden, model.width, "_exps", model.experts)
    if shared:
        yield from swiglu(model.hidden, shared, "_shexp")
