"""Multi-head latent attention: what is cached is one latent vector a token, shared by all heads.

Each head's keys and values are products of the latent with that head's matrices. The key matrix is
applied to the query instead, and the value matrix to what was attended, so that heads attend to the
latent itself: its values are the first part of its keys, beside which lies one rotated part.

Source: arXiv 2405.04434 (DeepSeek-V2), section 2.1.
"""

from dataclasses import dataclass

import numpy as np

from moestream.backends import Array, Matrix, RopeStyle
from moestream.gguf import Tensor
from moestream.layers.cache import AttentionShape, State
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
from moestream.quants import GGMLQuantizationType, dequantize


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Lengths: of the latent, and of a head's unrotated key, rotated key and value."""

    heads: int
    query_rank: int
    """Of the query's own latent; 0: queries are projected at once."""
    rank: int
    plain: int
    rotated: int
    value: int

    @property
    def state(self) -> AttentionShape:
        """One row a token: latent and rotated key."""
        return AttentionShape(1, self.rank + self.rotated, 0)


class LatentAttention:
    """Norm, latents, attention over the cached latents, output projection: (T, E) -> (T, E)."""

    def __init__(
        self,
        weights: Weights,
        shape: LatentShape,
        *,
        hidden_size: int,
        eps: float,
        rope: Rope,
        rope_style: RopeStyle,
        scale: float,
    ) -> None:
        self.backend = weights.backend
        self.shape, self.scale = shape, scale
        self.rope, self.rope_style = rope, rope_style
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        queries = shape.heads * (shape.plain + shape.rotated)
        if shape.query_rank:
            self.query_down = weights.matrix("attn_q_a.weight", shape.query_rank, hidden_size)
            self.query_norm = RMSNorm(weights, "attn_q_a_norm.weight", shape.query_rank, eps)
            self.query = weights.matrix("attn_q_b.weight", queries, shape.query_rank)
        else:
            self.query = weights.matrix("attn_q.weight", queries, hidden_size)
        self.down = weights.matrix("attn_kv_a_mqa.weight", shape.rank + shape.rotated, hidden_size)
        self.latent_norm = RMSNorm(weights, "attn_kv_a_norm.weight", shape.rank, eps)
        self.keys, self.values = _head_matrices(weights, shape)
        attended = shape.heads * shape.value
        self.output = weights.matrix("attn_output.weight", hidden_size, attended)

    def __call__(self, x: Array, state: State, start: int) -> Array:
        """Attend from the chunk at positions ``start``...; writes its latents to state."""
        ops, shape = self.backend, self.shape
        x = self.norm(x)
        query, latent = self._project(x)
        angles = self.rope(start, len(x))
        plain, turning = ops.split(
            query.reshape(-1, shape.heads, shape.plain + shape.rotated), shape.plain
        )
        latent, shared = ops.split(latent, shape.rank)
        latent = self.latent_norm(latent).reshape(-1, 1, shape.rank)
        shared = shared.reshape(-1, 1, shape.rotated)
        q = ops.join(
            ops.linear_heads(plain, self.keys), ops.rope(turning, *angles, self.rope_style)
        )  # (T, H, rank + rotated)
        k = ops.join(latent, ops.rope(shared, *angles, self.rope_style))  # (T, 1, ...)
        (latents,) = state
        out = ops.attention(q, k, None, latents, None, start, self.scale, value_dim=shape.rank)
        out = ops.linear_heads(out.reshape(-1, shape.heads, shape.rank), self.values)
        return ops.linear(out.reshape(-1, shape.heads * shape.value), self.output)

    def _project(self, x: Array) -> tuple[Array, Array]:
        """Queries of all heads, and the latent with its rotated part."""
        ops = self.backend
        if not self.shape.query_rank:
            query, latent = ops.linears(x, [self.query, self.down], [None, None])
            return query, latent
        low, latent = ops.linears(x, [self.query_down, self.down], [None, None])
        return ops.linear(self.query_norm(low), self.query), latent


def _head_matrices(weights: Weights, shape: LatentShape) -> tuple[list[Matrix], list[Matrix]]:
    """Each head's matrix from its plain query to the latent, and from the latent to its value."""
    heads, rank = shape.heads, shape.rank
    if weights.has("attn_k_b.weight"):
        keys = weights.tensor("attn_k_b.weight", (heads, rank, shape.plain))
        values = weights.tensor("attn_v_b.weight", (heads, shape.value, rank))
        return _each(weights, keys), _each(weights, values)
    # Older files hold both in one matrix, keys the other way round: rows of blocks cannot be
    # turned, so the keys' part is decoded.
    rows = shape.plain + shape.value
    both = weights.tensor("attn_kv_b.weight", (heads * rows, rank))
    data = both.data.reshape(heads, rows, -1)
    values = Tensor(both.name, both.type, (heads, shape.value, rank), data[:, shape.plain :])
    floats = dequantize(data[:, : shape.plain], both.type).astype(np.float32)
    turned = np.ascontiguousarray(floats.swapaxes(1, 2)).view(np.uint8)
    f32 = GGMLQuantizationType.F32
    keys = Tensor(both.name, f32, (heads, rank, shape.plain), turned)
    return _each(weights, keys), _each(weights, values)


def _each(weights: Weights, tensor: Tensor) -> list[Matrix]:
    return [
        weights.backend.matrix(Tensor(tensor.name, tensor.type, tensor.shape[1:], data))
        for data in tensor.data
    ]
