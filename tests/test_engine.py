"""Engine and session on a golden model: timelines, limits, statistics, routing events."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden.files import is_f32
from golden.models import MODELS
from moestream import Engine
from moestream.backends import Array
from moestream.engine.options import SamplingParams
from moestream.errors import ContextLengthError, ModelNotFoundError, UnsupportedModelError
from moestream.layers.moe import MoE, RoutingEvent

GOLDEN = Path(__file__).parent / "data" / "golden"
GREEDY = SamplingParams(temperature=0)
PROMPT = [5, 17, 3, 99, 42]


@pytest.fixture(scope="module")
def engine():
    with Engine.open(GOLDEN / "qwen2moe.gguf", backend="reference", context_length=64) as engine:
        yield engine


def test_generation_is_what_forward_says(engine: Engine) -> None:
    made = list(engine.session().generate(PROMPT, GREEDY, max_tokens=6))
    logits = engine.session().forward(PROMPT + made)
    assert made == logits.argmax(axis=1)[len(PROMPT) - 1 : -1].tolist()


def test_chunks_do_not_change_the_logits(engine: Engine) -> None:
    whole = engine.session().forward(PROMPT)
    pieces = engine.session().forward(PROMPT, chunk_tokens=2)
    np.testing.assert_allclose(pieces, whole, atol=1e-4)


def test_truncated_timeline_continues_as_if_new(engine: Engine) -> None:
    session = engine.session()
    session.forward([*PROMPT, 1, 2, 3])
    session.truncate(len(PROMPT))
    assert session.tokens == PROMPT
    again = session.forward([7, 8])
    fresh = engine.session().forward([*PROMPT, 7, 8])[-2:]
    np.testing.assert_allclose(again, fresh, atol=1e-4)


def test_stops_at_an_end_id_without_yielding_it(engine: Engine) -> None:
    made = list(engine.session().generate(PROMPT, GREEDY, max_tokens=4))
    session = engine.session()
    end = frozenset({made[2]})
    expected = made[: made.index(made[2])]
    assert list(session.generate(PROMPT, GREEDY, max_tokens=9, end_ids=end)) == expected
    assert session.stop_reason == "end"


def test_stops_at_max_tokens(engine: Engine) -> None:
    session = engine.session()
    assert len(list(session.generate(PROMPT, GREEDY, max_tokens=3))) == 3
    assert session.stop_reason == "length"


def test_stops_when_the_context_is_full(engine: Engine) -> None:
    session = engine.session()
    made = list(session.generate(PROMPT, GREEDY))
    assert len(PROMPT) + len(made) == 65  # the last token needs no place in the cache
    assert session.stop_reason == "context"


def test_zero_tokens_asked_none_given(engine: Engine) -> None:
    session = engine.session()
    assert list(session.generate(PROMPT, GREEDY, max_tokens=0)) == []
    assert session.tokens == PROMPT


def test_statistics(engine: Engine) -> None:
    session = engine.session()
    list(session.generate(PROMPT, GREEDY, max_tokens=4))
    stats = session.stats
    assert (stats.prompt_tokens, stats.generated_tokens) == (5, 4)
    assert 0 < stats.prompt_s <= stats.ttft_s
    assert stats.generation_tps == pytest.approx(3 / stats.generation_s)
    assert stats.prompt_tps == pytest.approx(5 / stats.prompt_s)


def test_a_token_that_nothing_follows_is_not_run(engine: Engine) -> None:
    session = engine.session()
    made = list(session.generate(PROMPT, GREEDY, max_tokens=3))
    assert session.tokens == PROMPT + made[:-1]


def test_the_step_that_made_the_end_counts(engine: Engine) -> None:
    made = list(engine.session().generate(PROMPT, GREEDY, max_tokens=4))
    session = engine.session()
    yielded = list(session.generate(PROMPT, GREEDY, end_ids=frozenset({made[2]})))
    stats = session.stats
    assert stats.generation_tps == pytest.approx(len(yielded) / stats.generation_s)


def test_the_timeline_is_true_though_the_output_layer_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(hidden: Array) -> NDArray[np.float32]:
        raise MemoryError

    session = engine.session()
    monkeypatch.setattr(engine.model, "logits", fail)
    with pytest.raises(MemoryError):
        session.forward(PROMPT)
    monkeypatch.undo()
    fresh = engine.session()
    fresh.forward(session.tokens)
    np.testing.assert_allclose(session.forward([7]), fresh.forward([7]), atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"context_length": -1},
        {"cache_type_k": "q5_0"},
        {"cache_type_v": "f8"},
    ],
)
def test_arguments_that_make_no_sense_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Engine.open(GOLDEN / "qwen2moe.gguf", backend="reference", **wrong)


@pytest.mark.parametrize("start", [lambda s, t: s.forward(t), lambda s, t: list(s.generate(t))])
def test_prompt_beyond_the_context_appends_nothing(engine: Engine, start) -> None:
    session = engine.session()
    with pytest.raises(
        ContextLengthError, match="The prompt has 65 tokens and the context holds 64"
    ):
        start(session, [1] * 65)
    assert session.tokens == []


@pytest.mark.parametrize("tokens", [[], [-1], [100_000]])
def test_bad_tokens_are_refused(engine: Engine, tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="token"):
        engine.session().forward(tokens)


def test_every_moe_layer_reports_its_routing_once_a_chunk(engine: Engine) -> None:
    events: list[RoutingEvent] = []
    engine.session().forward(PROMPT, chunk_tokens=3, on_route=events.append)
    layers = engine.config.num_layers
    assert [event.layer for event in events] == list(range(layers)) * 2
    assert [len(event.x) for event in events] == [3] * layers + [2] * layers


@pytest.mark.parametrize("model", [m.name for m in MODELS if m.experts and is_f32(m)])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_layers_own_gate_on_its_own_input_predicts_its_routing(model: str, backend: str) -> None:
    events: list[RoutingEvent] = []
    with Engine.open(GOLDEN / f"{model}.gguf", backend=backend, context_length=64) as engine:
        engine.session().forward(PROMPT, on_route=events.append)
        for event in events:
            layer = engine.model.layers[event.layer]
            moe, table = layer.ffn, getattr(layer, "table", None)
            assert isinstance(moe, MoE)
            if table is not None:  # which chooses in the gate's place
                np.testing.assert_array_equal(event.expert_ids, table(np.array(PROMPT)))
                continue
            guessed, weights = moe.norm_and_route(event.x)
            np.testing.assert_array_equal(guessed, event.expert_ids)
            np.testing.assert_array_equal(weights, event.expert_weights)
    assert events


def test_unknown_backend_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'gpu'; there are: auto, .*reference"):
        Engine.open(GOLDEN / "llama.gguf", backend="gpu")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.gguf"):
        Engine.open(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
@pytest.mark.parametrize("checks", [0, 1])
def test_a_prompt_that_is_broken_off_leaves_no_trace(name: str, checks: int) -> None:
    asked = iter(range(100))
    tokens = [int(id) for id in np.random.default_rng(0).integers(1, 100, 1100)]
    with Engine.open(GOLDEN / f"{name}.gguf", context_length=1200) as engine:
        session, fresh = engine.session(), engine.session()
        session.forward(tokens[:5])
        told = list(session.prefill(tokens[5:], stop=lambda: next(asked) >= checks))
        assert len(told) == checks
        assert session.tokens == tokens[:5]
        assert list(session.generate(tokens[5:9], max_tokens=3, stop=lambda: True)) == []
        assert session.stop_reason == "interrupted"
        expected = fresh.forward(tokens[:20])
        np.testing.assert_array_equal(session.forward(tokens[5:20]), expected[5:])
