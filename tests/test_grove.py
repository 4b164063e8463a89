"""Small experts that groups of experts have in common: by the formula of the model's own code."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import logits, open_engine, options_of, plan
from test_architecture_keys import changed

from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend
from moestream.gguf import GGUFFile
from moestream.layers.moe import MoE
from moestream.models import load_model
from moestream.quants import dequantize

SCALE = 0.7


def formula(file: GGUFFile, x: np.ndarray, chosen: int) -> np.ndarray:
    """A layer's experts, one token after the other, in float64: (T, E) -> (T, E)."""

    def tensor(name: str) -> np.ndarray:
        found = file.tensor(f"blk.1.{name}.weight")
        return dequantize(found.data, found.type).astype(np.float64)

    def network(kind: str, expert: int, row: np.ndarray) -> np.ndarray:
        gate, up, down = (tensor(f"ffn_{part}_{kind}")[expert] for part in ("gate", "up", "down"))
        gated = gate @ row
        return down @ (gated / (1 + np.exp(-gated)) * (up @ row))

    eps = file.metadata["grovemoe.attention.layer_norm_rms_epsilon"]
    normed = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps) * tensor("ffn_norm")
    out = np.zeros_like(normed)
    for token, row in enumerate(normed):
        scores = np.exp(tensor("ffn_gate_inp") @ row)
        best = np.argsort(-scores)[:chosen]
        for expert, weight in zip(best, scores[best] / scores[best].sum(), strict=True):
            out[token] += weight * network("exps", expert, row)
            out[token] += SCALE * weight * network("chexps", expert // 2, row)
    return out


@pytest.mark.parametrize("make", [ReferenceBackend, CpuBackend])
def test_groups_experts_see_what_the_layer_sees(make) -> None:
    x = np.random.default_rng(5).standard_normal((6, 64), np.float32)
    with changed("grovemoe", {"expert_group_scale": SCALE}) as file:
        model = load_model(file, make())
        experts = model.layers[1].ffn
        assert isinstance(experts, MoE)
        got = experts(x, 1)
        expected = formula(file, x.astype(np.float64), 3)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_they_stay_in_memory_while_others_are_streamed() -> None:
    with open_engine("grovemoe", "cpu") as engine:
        for layer in engine.model.layers:
            layer.ffn.shape = replace(layer.ffn.shape, scale=SCALE)
        resident = logits(engine)
        engine.stream(plan(0), options_of(io="direct"))
        np.testing.assert_array_equal(logits(engine), resident)
