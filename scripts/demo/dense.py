"""A batched NumPy forward pass of the dense source model, for making and checking the recipe.

Owns: the dense weights in float32, attention over whole batches of sequences, and sampling of
many conversations at once. moestream's engine runs one token timeline and shows nothing inside a
dense layer; clustering needs the inputs of every FFN over some 200,000 tokens in minutes.

Shapes: S sequences, T positions, E embedding, F neurons, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]
HEADS, KV_HEADS, HEAD_SIZE = 9, 3, 64
LAYERS, ROPE_BASE, NORM_EPS = 30, 100_000.0, 1e-5


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one dense layer; every matrix is (inputs, outputs)."""

    attn_norm: Floats
    q: Floats
    k: Floats
    v: Floats
    o: Floats
    ffn_norm: Floats
    gate: Floats
    up: Floats
    down: Floats


@dataclass(frozen=True, slots=True)
class DenseModel:
    """The source model: embedding (V, E), layers, final norm (E,)."""

    embedding: Floats
    layers: tuple[Layer, ...]
    output_norm: Floats


def load_dense(path: Path) -> DenseModel:
    """Read and dequantise the source GGUF (about 0.6 GB of float32)."""
    raw = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}

    def get(name: str) -> Floats:
        tensor = raw[f"{name}.weight"]
        return np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    def layer(index: int) -> Layer:
        matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        q, k, v, o, gate, up, down = (
            np.ascontiguousarray(get(f"blk.{index}.{name}").T) for name in matrices
        )
        attn_norm, ffn_norm = (get(f"blk.{index}.{name}") for name in ("attn_norm", "ffn_norm"))
        return Layer(attn_norm, q, k, v, o, ffn_norm, gate, up, down)

    return DenseModel(get("token_embd"), tuple(map(layer, range(LAYERS))), get("output_norm"))


def rms_norm(x: Floats, weight: Floats) -> Floats:
    """Root-mean-square norm over the last axis."""
    scale = 1 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(NORM_EPS))
    normed: Floats = x * scale * weight
    return normed


def activations(layer: Layer, normed: Floats) -> Floats:
    """SwiGLU neurons of normed inputs: (N, E) -> (N, F)."""
    gate = normed @ layer.gate
    # In place, block by block: a second (N, F) array would not fit the caches.
    for start in range(0, len(gate), 1024):
        block = gate[start : start + 1024]
        block /= 1 + np.exp(np.minimum(-block, 80))
    gate *= normed @ layer.up
    return gate


def rope(x: Floats, positions: NDArray[np.int64]) -> Floats:
    """Rotate interleaved pairs: x (..., T, heads, D), positions (T,)."""
    frequencies = ROPE_BASE ** (-np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    angles = (positions[:, None] * frequencies)[:, None]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack((even * cos - odd * sin, even * sin + odd * cos), axis=-1).reshape(x.shape)


def softmax(scores: Floats) -> Floats:
    """Softmax over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


ATTENTION_BATCH = 8


def attention(layer: Layer, x: Floats) -> Floats:
    """What the attention block adds to x: (S, T, E) -> (S, T, E)."""
    out = np.empty_like(x)
    for start in range(0, len(x), ATTENTION_BATCH):
        out[start : start + ATTENTION_BATCH] = _attend(layer, x[start : start + ATTENTION_BATCH])
    return out


def _attend(layer: Layer, x: Floats) -> Floats:
    sequences, length, _ = x.shape
    normed, positions = rms_norm(x, layer.attn_norm), np.arange(length)
    q = rope((normed @ layer.q).reshape(sequences, length, HEADS, HEAD_SIZE), positions)
    k = rope((normed @ layer.k).reshape(sequences, length, KV_HEADS, HEAD_SIZE), positions)
    v = (normed @ layer.v).reshape(sequences, length, KV_HEADS, HEAD_SIZE)
    group = HEADS // KV_HEADS
    # (S, KV, group * T, D) @ (S, KV, D, T): the heads of a group share their keys.
    q = q.reshape(sequences, length, KV_HEADS, group, HEAD_SIZE).transpose(0, 2, 3, 1, 4)
    scores = q.reshape(sequences, KV_HEADS, group * length, HEAD_SIZE) @ k.transpose(0, 2, 3, 1)
    scores = scores.reshape(sequences, KV_HEADS, group, length, length) / np.float32(8)
    scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
    mixed = softmax(scores).reshape(sequences, KV_HEADS, group * length, length)
    mixed = mixed @ v.transpose(0, 2, 1, 3)
    mixed = mixed.reshape(sequences, KV_HEADS, group, length, HEAD_SIZE).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(sequences, length, HEADS * HEAD_SIZE) @ layer.o


def converse(
    model: DenseModel,
    prompts: list[list[int]],
    follow_up: Callable[[int, int], list[int]],
    *,
    length: int,
    end_id: int,
    seed: int,
) -> NDArray[np.int32]:
    """Sample all conversations in lock step; returns tokens (S, length).

    `follow_up(row, turn)` gives what comes after the end token of that turn. Temperature 0.8 over
    the 20 likeliest tokens, a fixed seed.
    """
    rng, count = np.random.default_rng(seed), len(prompts)
    tokens = np.zeros((count, length), np.int32)
    queues, turns = [list(prompt) for prompt in prompts], [0] * count
    caches = [np.zeros((2, count, length, KV_HEADS, HEAD_SIZE), np.float32) for _ in model.layers]
    for position in range(length):
        for row, queue in enumerate(queues):
            if queue:
                tokens[row, position] = queue.pop(0)
        sampled = _sample(_step(model, caches, tokens[:, position], position), rng)
        for row, queue in enumerate(queues):
            if not queue:
                queue.append(int(sampled[row]))
                if sampled[row] == end_id:
                    turns[row] += 1
                    queue.extend(follow_up(row, turns[row]))
    return tokens


def _sample(logits: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    best = np.argpartition(logits, -20, axis=-1)[:, -20:]
    chances = softmax(np.take_along_axis(logits, best, axis=-1) / np.float32(0.8))
    picks = (chances.cumsum(axis=-1) < rng.random((len(logits), 1))).sum(axis=-1).clip(max=19)
    return np.take_along_axis(best, picks[:, None], axis=-1)[:, 0]


def _step(model: DenseModel, caches: list[Floats], ids: NDArray[np.int32], position: int) -> Floats:
    x, rows, here = model.embedding[ids], len(ids), np.array([position])
    for layer, (keys, values) in zip(model.layers, caches, strict=True):
        normed = rms_norm(x, layer.attn_norm)
        q = rope((normed @ layer.q).reshape(rows, 1, HEADS, HEAD_SIZE), here)
        k = rope((normed @ layer.k).reshape(rows, 1, KV_HEADS, HEAD_SIZE), here)
        keys[:, position] = k[:, 0]
        values[:, position] = (normed @ layer.v).reshape(rows, KV_HEADS, HEAD_SIZE)
        q = q.reshape(rows, KV_HEADS, HEADS // KV_HEADS, HEAD_SIZE)
        scores = q @ keys[:, : position + 1].transpose(0, 2, 3, 1) / np.float32(8)
        mixed = softmax(scores) @ values[:, : position + 1].transpose(0, 2, 1, 3)
        x = x + mixed.reshape(rows, HEADS * HEAD_SIZE) @ layer.o
        x = x + activations(layer, rms_norm(x, layer.ffn_norm)) @ layer.down
    return rms_norm(x, model.output_norm) @ model.embedding.T
