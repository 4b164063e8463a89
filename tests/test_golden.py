"""Our logits against llama.cpp's, for the tiny models of tests/data/golden (see its README)."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from golden.files import CONTEXT, Model, Weight, is_f32, tokens, weights, write_gguf, write_model
from golden.models import MODELS
from moestream._native import available_isas
from moestream.backends.reference import ReferenceBackend
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.layers.moe import RoutingEvent
from oracle.logit_stats import kl_divergence, log_softmax

GOLDEN = Path(__file__).parent / "data" / "golden"
F32_KL = 1e-6
# How far logits may be from what llama.cpp gives with its rounding of activations to 8 bits.
# Measured: means of 4e-4 to 2.2e-3, at most 8e-3 at one token; all of it rounding, see the README.
ROUNDED_MEAN_KL = 5e-3
ROUNDED_MAX_KL = 2e-2
# How far a backend may be, at any token of a quantised model, from what the weights mean.
BACKENDS = {"reference": F32_KL} | {f"cpu {isa}": ROUNDED_MAX_KL for isa in available_isas()}


def each(models: list[Model] | tuple[Model, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", models, ids=lambda model: model.name)


@pytest.fixture
def golden(model: Model) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{model.name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key of BACKENDS, with its instruction set (if it has one) forced."""
    monkeypatch.setenv("MOESTREAM_ISA", request.param.partition(" ")[2])
    return request.param


def open_engine(path: Path, backend: str) -> Engine:
    name = backend.partition(" ")[0]
    return Engine.open(
        path, backend=name, cache_type_k="f32", cache_type_v="f32", context_length=CONTEXT
    )


@pytest.fixture
def session(model: Model, backend: str) -> Iterator:
    with open_engine(GOLDEN / f"{model.name}.gguf", backend) as engine:
        yield engine.session()


def exact_logits(golden: dict[str, np.ndarray], model: Model) -> np.ndarray:
    return golden["logits" if is_f32(model) else "f32"]


@each(MODELS)
def test_logits_are_those_of_llama_cpp(model, backend, session, golden):
    """Of what the weights mean, and of its own rounding; every expert has its part in them."""
    events: list[RoutingEvent] = []
    ours = session.forward(golden["tokens"], on_route=events.append)
    theirs = exact_logits(golden, model)
    kl = kl_divergence(log_softmax(theirs), log_softmax(ours))
    assert kl.max() < (F32_KL if is_f32(model) else BACKENDS[backend])
    if kl.max() < F32_KL:
        np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    if not is_f32(model):
        rounded_kl = kl_divergence(log_softmax(golden["logits"]), log_softmax(ours))
        assert rounded_kl.mean() < ROUNDED_MEAN_KL
        assert rounded_kl.max() < ROUNDED_MAX_KL
    assert [event.layer for event in events] == model.moe_layers
    for event in events:
        assert set(event.expert_ids.ravel()) == set(range(model.experts))


@each([model for model in MODELS if model.arch in ("gemma4", "grok")])
def test_llama_cpps_table_explains_its_gelu(model, golden, monkeypatch):
    """llama.cpp takes GELU of half precision, to half precision, from a table."""
    exact = ReferenceBackend.glu

    def from_table(self, gate, up, activation, limit=0.0, up_limit=0.0):
        assert activation == "gelu"
        half = np.clip(gate, -10, 10).astype(np.float16).astype(np.float32)
        gelu = exact(self, half, np.ones_like(half), activation).astype(np.float16)
        return np.where(gate >= 10, gate, gelu.astype(np.float32)) * up

    theirs = log_softmax(exact_logits(golden, model))
    plain, table = [], []
    for kl in (plain, table):
        with open_engine(GOLDEN / f"{model.name}.gguf", "reference") as engine:
            ours = log_softmax(engine.session().forward(golden["tokens"]))
        kl.append(kl_divergence(theirs, ours).mean())
        monkeypatch.setattr(ReferenceBackend, "glu", from_table)
    assert table[0] < plain[0] / (10 if model.name == "gemma4-e" else 20)


CHUNKS = [
    *(pytest.param(model, "cpu", (7, 1), id=f"cpu-{model.name}") for model in MODELS),
    # The reference decodes a type the same way for any number of rows.
    *(
        pytest.param(model, "reference", (21,), id=f"reference-{model.name}")
        for model in filter(is_f32, MODELS)
    ),
]


@pytest.mark.parametrize(("model", "backend", "sizes"), CHUNKS)
def test_prefill_in_chunks_gives_the_same_logits(model, backend, sizes, golden):
    with open_engine(GOLDEN / f"{model.name}.gguf", backend) as engine:
        whole = engine.session().forward(golden["tokens"])
        for size in sizes:
            tokens = golden["tokens"][: 24 * size]
            chunked, first = engine.session().forward(tokens, chunk_tokens=size), whole[: 24 * size]
            assert kl_divergence(log_softmax(first), log_softmax(chunked)).max() < 1e-9
            np.testing.assert_array_equal(chunked.argmax(axis=1), first.argmax(axis=1))


@each([model for model in MODELS if model.name in ("qwen3moe", "mixtral-q8_0", "olmoe-q4_1")])
def test_fused_gate_and_up_give_the_same_bits(model, backend, session, golden, tmp_path):
    path = tmp_path / "fused.gguf"
    write_gguf(path, model, fused(weights(model)))
    with open_engine(path, backend) as engine:
        logits = engine.session().forward(golden["tokens"])
    np.testing.assert_array_equal(logits, session.forward(golden["tokens"]))


@each(MODELS)
def test_committed_models_are_what_the_script_writes(model, golden, tmp_path):
    assert golden["tokens"].tolist() == tokens()
    with (
        GGUFFile.open(GOLDEN / f"{model.name}.gguf") as committed,
        GGUFFile.open(write_model(model, tmp_path)) as made,
    ):
        assert made.metadata == committed.metadata
        assert list(made.tensors) == list(committed.tensors)
        for name, info in committed.tensors.items():
            assert made.tensors[name].type == info.type
            np.testing.assert_array_equal(made.tensor(name).data, committed.tensor(name).data)


def fused(weights: Iterable[Weight]) -> Iterator[Weight]:
    """Join gate and up experts in one tensor, gate rows first.

    llama.cpp reads such a tensor for other architectures only, so it cannot be the oracle here.
    """
    gates = {}
    for name, data, qtype in weights:
        if "ffn_gate_exps" in name:
            gates[name] = data
        elif "ffn_up_exps" in name:
            gate = gates[name.replace("up", "gate")]
            yield name.replace("up", "gate_up"), np.concatenate([gate, data], axis=1), qtype
        else:
            yield name, data, qtype
