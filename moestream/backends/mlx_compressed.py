"""Attention to compressed rows beside MLX: on the CPU, as the reference has it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.compressed import Stretches, attend_compressed, of_rows, pool
from moestream.backends.mlx_arrays import MlxArrays
from moestream.backends.mlx_attention import write_rows
from moestream.backends.mlx_core import mx
from moestream.backends.mlx_spans import Span
from moestream.backends.types import Array, AttentionRule, IndexQueries


class MlxCompressed(MlxArrays):
    """Part of the MLX ``Backend``; see there for shapes and meaning."""

    def pool_stretches(
        self,
        values: Array,
        scores: Array,
        past: Sequence[Array],
        places: NDArray[np.float32],
        start: int,
        rule: Stretches,
    ) -> Array:
        """Few numbers a token, beside those that it waits for."""
        fetch, send = self._device.fetch, self._device.send
        before = [fetch(one) for one in past]
        out = pool(fetch(values), fetch(scores), before, places, start, rule)
        for one, brought_up in zip(past, before, strict=True):
            one[:] = send(brought_up)
        return send(out)

    def compressed_attention(
        self,
        q: Array,
        rows: Array,
        kv_pass: Sequence[tuple[Any, int, int]],
        layer: int,
        rule: AttentionRule,
        stretches: Stretches,
        index: IndexQueries | None,
    ) -> Array:
        """One sequence after the other."""
        fetch, outs, row = self._device.fetch, [], 0
        queries, on_cpu = fetch(q), _fetched(fetch, rule, index)
        for store, start, tokens in kv_pass:
            here, keys = slice(row, row + tokens), store.layers[layer][0]
            write_rows(self._mx, keys, rows[here], Span(start, tokens, 0))

            def read(first: int, stop: int, step: int, keys: Array = keys) -> NDArray[np.float32]:
                return fetch(keys[0, first:stop:step].astype(mx.float32))

            asked = of_rows(on_cpu[1], here)
            found = attend_compressed(queries[here], read, start, on_cpu[0], stretches, asked)
            outs.append(self._device.send(found))
            row += tokens
        return self.stack_rows(outs)


def _fetched(
    fetch: Any, rule: AttentionRule, index: IndexQueries | None
) -> tuple[AttentionRule, IndexQueries | None]:
    """The same with NumPy's arrays."""
    sinks = None if rule.sinks is None else fetch(rule.sinks)
    rule = AttentionRule(rule.scale, rule.window, sinks, rule.value_dim, rule.cap)
    if index is not None:
        index = IndexQueries(fetch(index.queries), fetch(index.weights), index.most)
    return rule, index
