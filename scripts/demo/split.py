"""How one dense FFN becomes 32 overlapping experts: the mathematics of the demo model's recipe.

Owns: clustering, the router, the choice of neurons and their gains. Knows arrays only: no files,
no model, no text.

Shapes: N tokens, E embedding, F neurons of the dense FFN, X experts, K kept neurons.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moestream.demo.recipe import GAIN_STEPS

Floats = NDArray[np.float32]
EXPERTS, KEPT = 32, 1280
KMEANS_TOKENS, KMEANS_ROUNDS = 24_000, 20
TOP_TWO_GAP = 0.5  # mean difference of the two best logits: softmax weights near 0.61 and 0.39
GAIN_RIDGE = 0.02


def unit(x: Floats) -> Floats:
    """Rows scaled to length one."""
    scaled: Floats = x / np.sqrt(np.square(x).sum(axis=-1, keepdims=True) + np.float32(1e-12))
    return scaled


def top_two(logits: Floats) -> NDArray[np.int64]:
    """The two best columns of each row, best first: (N, X) -> (N, 2)."""
    first, rows = logits.argmax(axis=1), np.arange(len(logits))
    rest = logits.copy()
    rest[rows, first] = -np.inf
    return np.stack((first, rest.argmax(axis=1)), axis=1)


def routing_weights(logits: Floats) -> Floats:
    """Softmax over the two best experts, as a full matrix: (N, X) -> (N, X)."""
    chosen = top_two(logits)
    best = np.take_along_axis(logits, chosen, axis=1)
    first = 1 / (1 + np.exp(best[:, 1] - best[:, 0]))
    weights = np.zeros_like(logits)
    np.put_along_axis(weights, chosen, np.stack((first, 1 - first), axis=1), axis=1)
    return weights


def directions(inputs: Floats, rng: np.random.Generator) -> Floats:
    """Centres of balanced clusters of unit vectors: (N, E) -> (X, E)."""
    sample = inputs[rng.permutation(len(inputs))[:KMEANS_TOKENS]]
    centres = sample[:EXPERTS]
    bias, rows = np.zeros(EXPERTS, np.float32), np.arange(len(sample))
    for _ in range(KMEANS_ROUNDS):
        similarity = sample @ centres.T
        for _ in range(3):
            owner = (similarity + bias).argmax(axis=1)
            bias -= np.float32(0.02) * _overload(np.bincount(owner, minlength=EXPERTS), 2.0)
        members = np.zeros((EXPERTS, len(sample)), np.float32)
        members[owner, rows] = 1
        centres = unit(members @ sample)
    return centres


def _overload(counts: NDArray[np.int64], limit: float) -> Floats:
    """Log of each expert's share over the fair share, clipped."""
    share = counts / counts.sum() * EXPERTS
    overload: Floats = np.clip(np.log(np.maximum(share, 0.05)), -limit, limit).astype(np.float32)
    return overload


def router(
    normed: Floats, rng: np.random.Generator
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Router rows for FFN inputs (N, E), as int8 codes (X, E) and f16 scales (X,).

    Logits are similarities to the clusters' directions, less the mean input, plus a bias that
    balances the top-two load. Mixtral's router has no bias term: constants ride on `level`, the
    vector whose product with (rms-normed) inputs is nearly 1.
    """
    mean = normed.mean(axis=0)
    rows = directions(unit(normed - mean), rng)
    gram = normed.T @ normed
    gram += np.eye(len(gram), dtype=np.float32) * (np.float32(1e-3) * np.trace(gram) / len(gram))
    level = np.linalg.solve(gram, normed.sum(axis=0))
    flat, similarity = normed @ level, normed @ rows.T
    bias = -(rows @ mean)
    spread = np.float32((similarity + np.outer(flat, bias)).std())
    for turn in range(60):
        chosen = top_two(similarity + np.outer(flat, bias))
        counts = np.bincount(chosen.ravel(), minlength=EXPERTS)
        bias -= np.float32(0.3 / (1 + turn / 15)) * spread * _overload(counts, 1.0)
    logits = np.sort(similarity + np.outer(flat, bias), axis=1)
    scale = np.float32(TOP_TWO_GAP) / (logits[:, -1] - logits[:, -2]).mean()
    return _to_int8(scale * (rows + np.outer(bias, level)))


def _to_int8(rows: Floats) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    scales = (np.abs(rows).max(axis=1) / 127).astype(np.float16)
    codes = np.rint(rows / scales.astype(np.float32)[:, None])
    return np.clip(codes, -127, 127).astype(np.int8), scales


def neurons(
    energy: Floats, weights: Floats, rounds: int = 3
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Which neurons each expert keeps, ascending, and their gains in bytes: both (X, K).

    energy (N, F) is the square of each neuron's contribution to the output of each token, weights
    (N, X) the routing. Taking contributions of different neurons as orthogonal, each neuron has
    its own least-squares problem over the experts: `energy * (1 - weights @ gains)^2` summed over
    tokens. A neuron that one expert of a pair lacks is thus made up for by its partner's gain.
    """
    cross, target = _normal_equations(energy, weights)
    kept = _largest(target)
    for _ in range(rounds):
        gains = _solve_gains(cross, target, kept)
        own = np.einsum("fxx->xf", cross)
        others = np.einsum("fxy,yf->xf", cross, gains) - own * gains
        kept = _largest(np.square(np.maximum(target - others, 0)) / (own + np.float32(1e-12)))
    gains = _solve_gains(cross, target, kept)
    chosen = np.nonzero(kept)[1].reshape(len(kept), KEPT)
    codes = np.clip(np.rint(np.take_along_axis(gains, chosen, axis=1) * GAIN_STEPS), 1, 255)
    return chosen, codes.astype(np.uint8)


def _normal_equations(energy: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Per neuron: the experts' cross products (F, X, X) and targets (X, F)."""
    experts = weights.shape[1]
    first, second = np.triu_indices(experts)
    cross = np.empty((energy.shape[1], experts, experts), np.float32)
    products = energy.T @ (weights[:, first] * weights[:, second])
    cross[:, first, second] = products
    cross[:, second, first] = products
    return cross, weights.T @ energy


def _solve_gains(cross: Floats, target: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Gains (X, F) by ridge regression towards 1 on the kept neurons, 0 elsewhere."""
    experts = len(target)
    own = np.einsum("fxx->fx", cross)
    ridge = np.float32(GAIN_RIDGE) * own.mean(axis=1, keepdims=True) + np.float32(1e-12)
    on = kept.T
    matrix = cross * (on[:, :, None] & on[:, None, :])
    diagonal = np.arange(experts)
    matrix[:, diagonal, diagonal] += np.where(on, ridge, np.float32(1))
    right = np.where(on, target.T + ridge, np.float32(0))
    return np.linalg.solve(matrix, right[:, :, None])[:, :, 0].T


def _largest(score: Floats) -> NDArray[np.bool_]:
    """A mask of the KEPT largest of each row: (X, F) -> (X, F)."""
    order = np.argpartition(-score, KEPT, axis=1)[:, :KEPT]
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask
