"""DeepSeek's kind of mixture: what files may say, what is kept of a token, gates, streaming."""

from pathlib import Path

import numpy as np
import pytest

from golden.deepseek import DEEPSEEK_LIKE, HEADS, LATENT, TURNED, DeepSeekLike
from golden.files import weights, write_gguf
from moestream import Engine
from moestream.backends import BACKENDS
from moestream.errors import ModelFormatError, MoestreamError, UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.cache import state_bytes
from moestream.layers.moe import MoE, RoutingEvent
from moestream.models import read_config
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions

GOLDEN = Path(__file__).parent / "data" / "golden"
NAMES = [model.name for model in DEEPSEEK_LIKE]
BY_NAME = {model.name: model for model in DEEPSEEK_LIKE}
TOKENS = [(7 * i * i + 3) % 128 for i in range(40)]
BUDGETS = (0, 1 << 14, 1 << 17, 1 << 30)


def open_engine(name: str, backend: str) -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend=backend, context_length=64)


def logits(engine: Engine) -> np.ndarray:
    session = engine.session()
    out = [session.forward(TOKENS[:30], chunk_tokens=13)]
    return np.concatenate(out + [session.forward([token]) for token in TOKENS[30:]])


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=pytest.mark.slow if backend == "mlx" and turn else ())
        for turn, name in enumerate(NAMES)
        for backend in BACKENDS
    ],
)
def test_any_budget_gives_the_same_bits(name: str, backend: str) -> None:
    with open_engine(name, backend) as engine:
        resident = logits(engine)
    for experts_bytes in BUDGETS:
        with open_engine(name, backend) as engine:
            engine.stream(
                MemoryPlan(1 << 30, 0, 1 << 20, 0, experts_bytes, 1, 1), StreamingOptions()
            )
            np.testing.assert_array_equal(logits(engine), resident)


@pytest.mark.parametrize("name", NAMES)
def test_a_layers_own_gate_on_its_own_input_predicts_its_routing(name: str) -> None:
    events: list[RoutingEvent] = []
    with open_engine(name, "reference") as engine:
        engine.session().forward(TOKENS, on_route=events.append)
        for event in events:
            moe = engine.model.layers[event.layer].ffn
            assert isinstance(moe, MoE)
            np.testing.assert_array_equal(moe.norm_and_route(event.x)[0], event.expert_ids)
    assert [event.layer for event in events] == BY_NAME[name].moe_layers


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guess_may_be_wider_than_the_groups_that_are_used(backend: str) -> None:
    with open_engine("deepseek2-v3", backend) as engine:
        events: list[RoutingEvent] = []
        engine.session().forward([5], on_route=events.append)
        moe = engine.model.layers[events[-1].layer].ffn
        assert isinstance(moe, MoE)
        assert moe.routing.groups_used < moe.routing.groups
        every = moe.foresee(events[-1].x, np.inf, moe.num_experts)
        engine.session().forward([5, 6, 7], on_route=events.append)
        x = events[-1].x
        for mass in (0.1, 0.5, 0.9):  # of each row as of it alone
            together = moe.foresee(x, mass, moe.num_experts).tolist()
            for row, ids in enumerate(together):
                assert set(ids) == {*moe.foresee(x[row : row + 1], mass, moe.num_experts)[0]}
    assert sorted(every[0].tolist()) == list(range(moe.num_experts))


@pytest.mark.parametrize("name", ["deepseek2-v2", "deepseek2-v3"])
def test_only_latents_are_kept(name: str) -> None:
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
        shapes = read_config(file).state_shapes()
    assert state_bytes(shapes, 5, ("f16", "f16")) == 5 * 3 * 2 * (LATENT + TURNED)


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_layouts_of_the_projections_give_the_same(backend: str, tmp_path: Path) -> None:
    old, path = BY_NAME["deepseek2-v2"], tmp_path / "new.gguf"
    write_gguf(path, old, split_projections(old))
    with open_engine(old.name, backend) as engine:
        expected = engine.session().forward(TOKENS)
    with Engine.open(path, backend=backend, context_length=64) as engine:
        np.testing.assert_array_equal(engine.session().forward(TOKENS), expected)


def split_projections(model: DeepSeekLike):
    """The model's weights with keys' and values' projections apart, as newer files have them."""
    for name, data, qtype in weights(model):
        if "attn_kv_b" not in name:
            yield name, data, qtype
            continue
        heads = data.reshape(HEADS, model.plain + model.value, LATENT)
        keys, values = heads[:, : model.plain], heads[:, model.plain :]
        yield name.replace("kv_b", "k_b"), np.ascontiguousarray(keys.swapaxes(1, 2)), qtype
        yield name.replace("kv_b", "v_b"), np.ascontiguousarray(values), qtype


@pytest.mark.parametrize(
    ("name", "keys", "error", "said"),
    [
        ("glm4moe", {"expert_gating_func": 3}, UnsupportedModelError, "func is 3; .*2: sigmoid"),
        ("glm4moe", {"nextn_predict_layers": 4}, ModelFormatError, "layers is 4, .* the 4 layers"),
        ("glm4moe", {"attention.causal": False}, UnsupportedModelError, "causal is False"),
        ("bailingmoe2", {"expert_group_count": 3}, ModelFormatError, "group_count is 3"),
        ("bailingmoe2", {"expert_group_used_count": 5}, ModelFormatError, "used_count is 5"),
        ("bailingmoe2", {"expert_group_used_count": 1}, ModelFormatError, "3 of 8 experts"),
        ("deepseek2-v2", {"rope.scaling.type": "linear"}, UnsupportedModelError, "none and yarn"),
        ("deepseek2-v2", {"rope.dimension_count": 20}, ModelFormatError, "is 20, .* head's 20"),
        ("deepseek2-v2", {"attention.kv_lora_rank": 0}, ModelFormatError, "kv_lora_rank is 0"),
        (
            "deepseek2-v3",
            {"attention.temperature_scale": 0.1, "attention.temperature_length": 0},
            ModelFormatError,
            "temperature_length is 0",
        ),
    ],
)
def test_keys_that_cannot_be(name, keys, error: type[MoestreamError], said) -> None:
    with changed(BY_NAME[name], keys) as file, pytest.raises(error, match=said):
        read_config(file)


def test_a_router_whose_file_is_silent() -> None:
    """llama.cpp's defaults: softmax for DeepSeek, sigmoid for GLM; raw weights, not scaled."""
    for name, gating in (("deepseek2-v2", "softmax"), ("glm4moe", "sigmoid")):
        silent = {"expert_gating_func": 0, "expert_weights_scale": 0.0}
        with changed(BY_NAME[name], silent) as file:
            routing = read_config(file).routing
        assert (routing.gating, routing.scale) == (gating, 1.0)


def changed(model: DeepSeekLike, keys: dict) -> GGUFFile:
    """The model's file, as if keys had other values."""
    file = GGUFFile.open(GOLDEN / f"{model.name}.gguf")
    file.metadata = file.metadata | {f"{model.arch}.{key}": value for key, value in keys.items()}
    return file


def test_layers_that_predict_further_tokens_are_ignored(tmp_path: Path) -> None:
    model, path = BY_NAME["glm4moe-q8_0"], tmp_path / "further.gguf"
    own = list(weights(model))
    last = f"blk.{model.layers - 1}."
    further = [
        (name.replace(last, f"blk.{model.layers}."), data, qtype)
        for name, data, qtype in own
        if name.startswith(last)
    ]
    write_gguf(path, model, own + further)
    with open_engine(model.name, "reference") as engine:
        expected = logits(engine)
    with Engine.open(path, backend="reference", context_length=64) as engine:
        engine.stream(MemoryPlan(1 << 30, 0, 1 << 20, 0, 1 << 17, 1, 1), StreamingOptions())
        np.testing.assert_array_equal(logits(engine), expected)
