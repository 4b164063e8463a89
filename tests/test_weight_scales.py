"""Scales of whole matrices, which files of NVFP4 keep in tensors of their own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from golden.files import CONTEXT, Weight, tokens, weights, write_gguf
from golden.models import MODELS
from moestream.backends import BACKENDS
from moestream.engine.engine import Engine

MODEL = next(model for model in MODELS if model.name == "qwen3moe")
DENSE = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
EXPERTS = ("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")


def with_scales() -> Iterator[Weight]:
    """The model with all but its norms smaller by powers of two, and scales that make up for it."""
    for name, data, type in weights(MODEL):
        if name.endswith(DENSE):
            yield name, data * np.float32(0.25), type
            yield name.replace(".weight", ".scale"), np.array([4], np.float32), Type.F32
            yield name.replace(".weight", ".input_scale"), np.array([9], np.float32), Type.F32
        elif name.endswith(EXPERTS):
            scales = np.array([2.0 ** (e % 3 + 1) for e in range(len(data))], np.float32)
            yield name, data / scales[:, None, None], type
            yield name.replace(".weight", ".scale"), scales, Type.F32
        else:
            yield name, data, type


def logits(path: Path, backend: str) -> np.ndarray:
    with Engine.open(path, backend=backend, context_length=CONTEXT) as engine:
        return engine.session().forward(tokens())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_makes_up_for_smaller_weights(backend: str, tmp_path: Path) -> None:
    if backend == "mlx":
        pytest.importorskip("mlx.core")
    plain, scaled = tmp_path / "plain.gguf", tmp_path / "scaled.gguf"
    write_gguf(plain, MODEL, weights(MODEL))
    write_gguf(scaled, MODEL, with_scales())
    np.testing.assert_array_equal(logits(scaled, backend), logits(plain, backend))
