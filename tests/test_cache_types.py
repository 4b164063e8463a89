"""Sessions that store keys and values as blocks: close to float16, and the same bits every time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moestream import Engine
from moestream.errors import UnsupportedModelError

GOLDEN = Path(__file__).parent / "data" / "golden"
BLOCKS: dict[str, Any] = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
SMALL: dict[str, Any] = {"cache_type_k": "q4_0", "cache_type_v": "q4_0"}


def open_engine(**options: Any) -> Engine:
    """Open a model whose heads are whole blocks of 32."""
    return Engine.open(GOLDEN / "qwen3moe-odd.gguf", context_length=512, **options)


def tokens_of(seed: int, count: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, 128, count).tolist()
    return tokens


def divergence(logits: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL divergence at every position."""
    p, q = (
        x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
        for x in (logits.astype(np.float64), others.astype(np.float64))
    )
    kl: NDArray[np.float64] = np.sum(np.exp(p) * (p - q), axis=-1)
    return kl


@pytest.mark.parametrize(("backend", "limit"), [("cpu", 5e-3), ("reference", 1e-3)])
@pytest.mark.parametrize("types", [BLOCKS, {"cache_type_k": "q8_0"}, {"cache_type_v": "q8_0"}])
def test_blocks_move_the_distribution_little(
    types: dict[str, Any], backend: str, limit: float
) -> None:
    # A dense model: a random mixture's router turns the least change into other experts. The cpu
    # backend rounds its inputs to int8, where small changes grow as well.
    assert 0 < moved(types, backend) < limit


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_four_bits_are_sixteen_times_as_coarse(backend: str) -> None:
    assert moved(BLOCKS, backend) < moved(SMALL, backend) < 2 * 16**2 * moved(BLOCKS, "reference")


def moved(types: dict[str, Any], backend: str) -> float:
    """The mean divergence from float16's distribution."""
    logits = []
    for options in ({}, types):
        with Engine.open(GOLDEN / "llama-k.gguf", backend=backend, **options) as engine:
            logits.append(engine.session().forward(tokens_of(0, 100)))
    return float(divergence(*logits).mean())


@pytest.mark.parametrize("types", [BLOCKS, SMALL, {"cache_type_v": "q8_0"}])
def test_any_chunks_threads_and_truncation_give_the_same_bits(types: dict[str, Any]) -> None:
    tokens = tokens_of(1, 300)
    with open_engine(**types, threads=1) as one, open_engine(**types, threads=2) as two:
        whole = one.session().forward(tokens)
        session = two.session()
        np.testing.assert_array_equal(session.forward(tokens, chunk_tokens=37), whole)
        session.truncate(100)
        np.testing.assert_array_equal(session.forward(tokens[100:110]), whole[100:110])


@pytest.mark.parametrize("types", [BLOCKS, SMALL])
def test_every_instruction_set_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, types: dict[str, Any]
) -> None:
    from moestream import _native

    results = []
    for isa in _native.available_isas():
        monkeypatch.setenv("MOESTREAM_ISA", isa)
        with open_engine(**types) as engine:
            results.append(engine.session().forward(tokens_of(2, 70)))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("types", "n_bytes"),
    [({}, 512), (BLOCKS, 272), (SMALL, 144), ({"cache_type_k": "f32"}, 768)],
)
def test_the_budget_counts_the_bytes_that_there_are(types: dict[str, Any], n_bytes: int) -> None:
    with open_engine(**types, budget="500M") as engine:  # 2 layers of 2 heads of 32 values
        assert engine.kv_bytes(1) == engine.kv_bytes(256) == 256 * n_bytes  # a whole block
        assert engine.plan is not None
        assert engine.plan.kv_bytes == 512 * n_bytes


def test_heads_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="heads of 16 values"):
        Engine.open(GOLDEN / "qwen2moe.gguf", backend="reference", cache_type_v="q8_0")
