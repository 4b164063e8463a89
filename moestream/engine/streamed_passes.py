"""Passes of a model whose experts may be streamed: how long they are, and the room they take.

What a pass computes is in ``models.passes``; who gives it room, in ``expert_streaming``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.engine.expert_streaming import ExpertStreaming
from moestream.layers.batch import Batch
from moestream.models import Decoder, ModelConfig
from moestream.models.passes import Pass
from moestream.streaming.memory import MemoryPlan

_FREE_ROWS_BYTES = 4 << 20
"""Rows of a pass for which the program's own part of a budget has room."""
_LAYERS = 2
"""In a long pass that is the least: one is computed, the next is read."""
_LEAST_ROWS_SHARE = 8
"""Of the experts' memory, one part in so many can always be had by a long pass's rows."""


def begin_pass(
    streaming: ExpertStreaming | None,
    model: Decoder,
    kv_bytes: int,
    ids: NDArray[np.int32],
    chunks: Sequence[Batch],
) -> Pass:
    """Begin a pass once there is room for its rows, for keys and values, and for what chooses some.

    To be ended.

    Raises:
        ModelFormatError: see ``ExpertStreaming.before_pass``.
    """
    if streaming is None:
        return Pass(model, ids, chunks)
    rows = row_bytes(model.config, len(ids))
    long = len(chunks) > 1
    if model.config.choice_bytes:
        seen = max(int(chunk.positions().max()) for chunk in chunks) + 1
        kv_bytes += model.config.choice_bytes * seen
    streaming.before_pass(kv_bytes, rows)
    try:
        if streaming.prefetcher is not None:
            streaming.prefetcher.before_pass(len(ids), ids)
        if long:
            streaming.residency.begin_long_pass()
        return Pass(model, ids, chunks)
    except BaseException:
        _after_pass(streaming, rows, long=long)
        raise


def end_pass(streaming: ExpertStreaming | None, model: Decoder, under_way: Pass) -> None:
    """A pass has come to its end, or is left where it is."""
    if streaming is not None:
        rows = row_bytes(model.config, under_way.rows)
        _after_pass(streaming, rows, long=under_way.is_long)


def _after_pass(streaming: ExpertStreaming, rows: int, *, long: bool) -> None:
    streaming.after_pass(rows, long=long)
    if streaming.prefetcher is not None:
        streaming.prefetcher.after_pass()


def pass_tokens(
    streaming: ExpertStreaming | None, config: ModelConfig, chunk_tokens: int, *, in_order: bool
) -> int:
    """Tokens that a pass of one sequence runs at most, in chunks.

    Where experts are streamed these are many, so that each is read once for all of them. Who is
    to hear of a token's layers ``in_order`` has passes of one chunk.
    """
    if streaming is None or in_order:
        return chunk_tokens
    plan, layers = streaming.plan, streaming.num_layers
    return long_pass_tokens(plan, layers, config.row_size, chunk_tokens)


def long_pass_tokens(plan: MemoryPlan, layers: int, row_size: int, chunk_tokens: int) -> int:
    """Tokens, in whole chunks, whose rows fit in what the layers at work leave of the experts'."""
    at_work = _LAYERS * plan.total_expert_bytes // layers
    room = max(plan.experts_bytes - at_work, plan.experts_bytes // _LEAST_ROWS_SHARE)
    return max(room // (4 * row_size) // chunk_tokens, 1) * chunk_tokens


def row_bytes(config: ModelConfig, tokens: int) -> int:
    """What the rows of a pass take beyond those for which the program's own part has room."""
    return max(4 * config.row_size * tokens - _FREE_ROWS_BYTES, 0)
