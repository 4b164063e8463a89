"""Models with a recurrent state: what is kept, taken back and run again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from alphabet_model import byte_tokens

from golden.files import VOCAB, add_value, finish, write_model
from golden.lfm2moe import GoldenConvolved
from moestream.chat.conversation import Conversation, Turn
from moestream.chat.dialogue import Dialogue
from moestream.chat.settings import Settings
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.session import Session
from moestream.errors import MoestreamError
from moestream.forecast.demand import read_demand
from moestream.gguf import GGUFFile
from moestream.layers.moe import RoutingEvent
from moestream.models import read_config
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions

GOLDEN = Path(__file__).parent / "data" / "golden"
PROMPT = [5, 17, 3, 99, 42, 8, 8, 61]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(params=["qwen3next", "qwen35moe", "lfm2moe", "qwen4exp"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["reference", "cpu"])
def engine(request: pytest.FixtureRequest, name: str) -> Iterator[Engine]:
    with Engine.open(GOLDEN / f"{name}.gguf", backend=request.param) as opened:
        yield opened


def assert_as_if_new(engine: Engine, session: Session) -> None:
    """What follows is what would follow in a session that never saw anything else."""
    fresh = engine.session()
    if session.tokens:
        fresh.forward(session.tokens)
    np.testing.assert_array_equal(session.forward([7, 2]), fresh.forward([7, 2]))


@pytest.mark.parametrize("length", [0, 1, 5, len(PROMPT)])
def test_truncated_timeline_continues_as_if_new(engine: Engine, length: int) -> None:
    session = engine.session()
    session.forward(PROMPT)
    assert session.reusable(length) == (length if length == len(PROMPT) else 0)
    session.truncate(length)
    assert session.tokens == PROMPT[:length]
    assert_as_if_new(engine, session)


def test_truncating_to_more_than_there_is_changes_nothing(engine: Engine) -> None:
    session = engine.session()
    session.forward(PROMPT)
    with pytest.raises(ValueError, match="8 cached positions to 9"):
        session.truncate(9)
    assert_as_if_new(engine, session)


def test_a_pass_that_breaks_off_leaves_no_trace(engine: Engine) -> None:
    def fail(event: RoutingEvent) -> None:
        if event.layer == engine.config.num_layers - 1:  # when the states before have moved on
            raise KeyboardInterrupt

    session = engine.session()
    session.forward(PROMPT)
    with pytest.raises(KeyboardInterrupt):
        session.forward([1, 2, 3], on_route=fail)
    assert session.tokens == PROMPT
    assert_as_if_new(engine, session)


def test_a_rerun_that_breaks_off_too_leaves_a_timeline_that_can_be_run_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    session = engine.session()
    session.forward(PROMPT)
    for _ in range(2):  # in a pass, and in the rerun that the next one begins with
        with monkeypatch.context() as patch:
            patch.setattr(engine.model.layers[-1], "run_ffn", fail)
            with pytest.raises(KeyboardInterrupt):
                session.forward([1, 2, 3])
    assert session.reusable(len(PROMPT)) == 0
    session.truncate(len(PROMPT))
    assert_as_if_new(engine, session)


def test_memory_of_a_context_counts_states_once(engine: Engine, name: str) -> None:
    states = {"qwen3next": 2 * (3 * 128 + 4 * 16 * 16), "lfm2moe": 2 * 2 * 64}
    grams = 2 + 9 * 3 * 32  # tokens, and rows that are convolved
    states["qwen4exp"] = 3 * (3 * 128 + 4 * 16 * 16) + grams
    fixed = 4 * states[name.replace("35moe", "3next")]
    block = engine.kv_bytes(1) - engine.kv_bytes(0)
    assert engine.kv_bytes(0) == fixed
    assert engine.kv_bytes(257) == fixed + 2 * block
    demand = read_demand(engine.file)
    assert (demand.state_bytes, 256 * demand.kv_bytes) == (fixed, block)
    choosing = 300 * engine.config.choice_bytes  # for a moment, and no part of what is kept
    assert bool(choosing) == (name == "qwen4exp")
    assert demand.context_bytes(300) == engine.kv_bytes(300) + choosing


@pytest.mark.parametrize("experts_bytes", [0, 1 << 16, 1 << 18, 1 << 30])
def test_streaming_changes_no_bit(engine: Engine, experts_bytes: int) -> None:
    def logits() -> np.ndarray:
        session = engine.session()
        steps = [session.forward(PROMPT * 4, chunk_tokens=25)]
        return np.concatenate([*steps, *(session.forward([token]) for token in PROMPT)])

    resident = logits()
    engine.stream(
        MemoryPlan(1 << 30, 0, 1 << 20, 0, experts_bytes, 1, 1), StreamingOptions(io="direct")
    )
    np.testing.assert_array_equal(logits(), resident)


@dataclass(frozen=True, slots=True)
class Speaking(GoldenConvolved):
    """With a vocabulary: the bytes of ASCII."""

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        GoldenConvolved.metadata(self, writer)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*byte_tokens()[: VOCAB - 1], "ab"])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(0)
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)


@pytest.fixture
def dialogue(tmp_path: Path) -> Iterator[Dialogue]:
    path = write_model(Speaking("speaking", "lfm2moe", 211), tmp_path)
    with Engine.open(path, backend="cpu", context_length=2048) as engine:
        yield Dialogue(
            engine, Conversation(), Settings(SamplingParams(temperature=0), max_tokens=4)
        )


def say(dialogue: Dialogue, text: str) -> str:
    pieces = [piece for some in dialogue.ask(text, lambda: False) for piece in some]
    return "".join(piece.text for piece in pieces)


def test_a_turn_that_goes_on_runs_new_tokens_alone(dialogue: Dialogue) -> None:
    say(dialogue, "hello")
    seen = len(dialogue.session.tokens)
    say(dialogue, "again")
    assert dialogue.answer is not None
    assert dialogue.answer.cached_tokens == seen
    assert_as_if_new(dialogue.engine, dialogue.session)


def test_a_turn_asked_again_is_run_from_where_a_state_was_kept(dialogue: Dialogue) -> None:
    say(dialogue, "x" * 600)
    answer = say(dialogue, "hello")
    assert answer
    assert dialogue.answer is not None
    whole = dialogue.answer.prompt_tokens
    dialogue.conversation.undo()
    dialogue.edited()
    assert say(dialogue, "hello") == answer
    assert whole - dialogue.answer.cached_tokens <= 256
    assert dialogue.answer.stats.prompt_tokens == whole - dialogue.answer.cached_tokens
    assert_as_if_new(dialogue.engine, dialogue.session)


def test_a_changed_turn_is_run_from_the_start(dialogue: Dialogue) -> None:
    say(dialogue, "hello")
    dialogue.conversation.turns[0] = Turn("hullo", "no")
    say(dialogue, "again")
    assert_as_if_new(dialogue.engine, dialogue.session)


def changed_file(path: Path, name: str, keys: dict[str, Any]) -> GGUFFile:
    """A header of golden model ``name`` with some keys changed, or left out (None)."""
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as golden:
        metadata = dict(golden.metadata) | {f"{name}.{key}": keys[key] for key in keys}
    writer = gguf.GGUFWriter(path, name)
    for key, value in metadata.items():
        if key.startswith("general.architecture") or value is None:
            continue
        if not isinstance(value, str):
            add_value(writer, key, value)
    writer.add_tensor("token_embd.weight", np.ones((VOCAB, 64), np.float32))
    finish(writer)
    return GGUFFile.open(path)


@pytest.mark.parametrize(
    ("model", "keys", "said"),
    [
        ("qwen3next", {"ssm.inner_size": 65}, r"ssm\.inner_size is 65, expected 4 heads of 16, 64"),
        ("qwen3next", {"ssm.time_step_rank": 3}, r"ssm\.time_step_rank is 3, .* multiple of"),
        ("qwen3next", {"ssm.conv_kernel": None}, r"ssm\.conv_kernel"),
        ("qwen3next", {"nextn_predict_layers": 4}, "nextn_predict_layers leaves none of 4 layers"),
        ("qwen35moe", {"attention.recurrent_layers": [True]}, "recurrent_layers has 1 values"),
        ("qwen35moe", {"rope.dimension_sections": [2, 2, 1, 0]}, "without a position"),
        ("qwen35moe", {"rope.dimension_sections": [2, 2, 2]}, "expected 4 whole numbers"),
        ("lfm2moe", {"expert_gating_func": 1}, "expert_gating_func is 1; supported is 2: sigmoid"),
        ("lfm2moe", {"shortconv.l_cache": 0}, r"shortconv\.l_cache is 0"),
    ],
)
def test_keys_that_make_no_sense(tmp_path: Path, model: str, keys: dict, said: str) -> None:
    with (
        changed_file(tmp_path / "model.gguf", model, keys) as file,
        pytest.raises(MoestreamError, match=said),
    ):
        read_config(file)


def test_every_fourth_layer_attends_by_default(tmp_path: Path) -> None:
    keys = {"full_attention_interval": None, "block_count": 9}
    with changed_file(tmp_path / "model.gguf", "qwen3next", keys) as file:
        assert read_config(file).kv_heads == (0, 0, 0, 2) * 2
