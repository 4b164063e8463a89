"""Streaming changes where experts are read from and never what is computed."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.choices import HALF_LIFE, READ_METHODS
from moestream.engine.engine import Engine
from moestream.errors import BudgetError, ModelFormatError, ProfileError, StorageError
from moestream.policies import POLICIES
from moestream.profiles import Fingerprint, Profile
from moestream.streaming.build import policy_factory
from moestream.streaming.division import size_classes
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.streaming.reader import ExpertReader

GOLDEN = Path(__file__).parent / "data" / "golden"
NAMES = (
    "qwen3moe",
    "mixtral-q8_0",
    "qwen2moe",
    "olmoe-q4_1",
    "gpt-oss-mxfp4",
    "minimax-m2",
    "gemma4",
    "ernie4_5-moe-mxfp4",
    "granitemoe",
    "hunyuan-moe",
    "phimoe-q4_1",
    "deepseek2-v2-q5_0",
)
EXPERTS_BYTES = (0, 1 << 14, 1 << 16, 1 << 17, 190_000, 1 << 18, 1 << 30)
"""From less than one token's experts to more than all; slots keep some from 190,000 on."""


def plan(experts_bytes: int) -> MemoryPlan:
    return MemoryPlan(1 << 30, 0, 1 << 20, 0, experts_bytes, 1, 1)


def open_engine(name: str, backend: str = "reference") -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend=backend, context_length=128)


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    with np.load(GOLDEN / "llama.npz") as arrays:
        return arrays["tokens"].tolist()


PROMPT, END = 28, 40


def logits(engine: Engine, tokens: list[int]) -> np.ndarray:
    """A prompt in two chunks, then token by token."""
    session = engine.session()
    out = [session.forward(tokens[:PROMPT], chunk_tokens=18)]
    out += [session.forward([token]) for token in tokens[PROMPT:END]]
    return np.concatenate(out)


@pytest.fixture(scope="module")
def resident(tokens) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for backend in ("reference", "cpu"):
        for name in NAMES:
            with open_engine(name, backend) as engine:
                found[name, backend] = logits(engine, tokens)
    return found


def options_of(**changes) -> StreamingOptions:
    return StreamingOptions(**changes)


EVERY = [
    options_of(),
    *(options_of(io=io, pin=pin) for io in READ_METHODS for pin in ("auto", "none")),
    *(options_of(io="direct", policy=policy) for policy in POLICIES),
    options_of(io="direct", prefetch=False),
    *(options_of(io="direct", layer_budget=kind) for kind in ("uniform", "shallow", "adaptive")),
    options_of(io="madvise", layer_budget="adaptive", policy="arc"),
    options_of(io="pread", prefetch_layers=3),
    options_of(io="direct", prefetch_mass=0.9, layer_budget="shallow", policy="arc"),
    options_of(io="pread", prefetch_mass=1.0, prefetch_layers=2),
    options_of(io="madvise", prefetch_mass=0.5),
    options_of(io="madvise", prefetch_layers=3, window=4),
    *(options_of(io="direct", split=share) for share in (0.01, 0.5, 0.9)),
    options_of(io="pread", split=0.75, prefetch=False, policy="lru"),
    options_of(split="auto"),
    options_of(io="pread", split=0.4, prefetch_mass=1.0, prefetch_layers=2, layer_budget="shallow"),
    options_of(io="direct", split="auto", layer_budget="adaptive", policy="lcp"),
]


def made_up(engine: Engine) -> Profile:
    """A profile of the model with counts of no workload."""
    fingerprint = Fingerprint.of(engine.file)
    shape = len(fingerprint.expert_bytes), fingerprint.num_experts
    counts = np.random.default_rng(3).integers(0, 50, shape)
    return Profile("made-up", "", fingerprint, 100, counts, counts.astype(float))


@pytest.mark.parametrize("experts_bytes", EXPERTS_BYTES)
@pytest.mark.parametrize("number", range(len(EVERY)), ids=lambda number: str(EVERY[number]))
def test_same_logits_bit_for_bit(number, experts_bytes, tokens, resident):
    # Two models in turn, each with a backend of its own: all pairs, over the budgets and methods;
    # every other time with a profile.
    turn = number + EXPERTS_BYTES.index(experts_bytes)
    warm = turn % 2 == 1
    backends = ("cpu", "reference") if number // 2 % 2 else ("reference", "cpu")
    for name, backend in zip(NAMES[turn % 6 :: 6], backends, strict=True):
        with open_engine(name, backend) as engine:
            profile = made_up(engine) if warm else None
            engine.stream(plan(experts_bytes), EVERY[number], profile)
            np.testing.assert_array_equal(logits(engine, tokens), resident[name, backend])


def test_guesses_are_widened_where_the_router_is_unsure(tokens):
    with open_engine("qwen3moe", "cpu") as engine:
        moe, found = engine.model.layers[1].ffn, []
        engine.session().forward(tokens[:3], on_route=found.append)
        for row in range(3):
            x = found[0].x[row : row + 1]
            k, (ids, _) = moe.num_experts_per_tok, moe.norm_and_route(x)
            logits = engine.backend.linear(moe.norm(x), moe.router)[0].astype(float)
            falling = -np.sort(-np.exp(logits) / np.exp(logits).sum())
            for mass in (0.01, 0.4, 0.7, 1.0):
                guess = moe.foresee(x, mass, 2 * k)[0].tolist()
                needed = int((np.cumsum(falling) < mass).sum()) + 1
                assert len(guess) == min(max(needed, k), 2 * k)
                assert guess[:k] == ids[0].tolist()


def recall_of(engine: Engine, tokens: list[int]) -> float:
    logits(engine, tokens)
    records = engine.streaming.stats().recall.values()
    return sum(r.predicted for r in records) / sum(r.routed for r in records)


def test_wider_guesses_foresee_more(tokens):
    found = []
    for mass in (None, 0.6, 1.0):
        with open_engine("qwen3moe", "cpu") as engine:
            engine.stream(plan(1 << 16), options_of(io="pread", prefetch_mass=mass))
            found.append(recall_of(engine, tokens))
    assert found[0] <= found[1] <= found[2]
    assert found[0] < found[2]


@pytest.mark.parametrize("io", READ_METHODS)
def test_a_profile_is_in_memory_before_the_first_token(io):
    with open_engine("qwen3moe") as engine:
        profile, told = made_up(engine), []
        engine.stream(
            plan(1 << 18), options_of(io=io), profile, lambda *so_far: told.append(so_far)
        )
        residency, warming = engine.streaming.residency, engine.streaming.stats().warming
        size = next(iter(profile.fingerprint.expert_bytes.values()))
        assert warming.bytes == warming.experts * size
        assert warming.experts > 2
        assert warming.bytes <= 1 << 18
        assert warming.read_bytes <= warming.bytes
        hot = np.argsort(-profile.key_rates(), kind="stable")[: warming.experts // 2]
        for layer in profile.layers:
            keys = [int(key) for key in hot if key // residency.num_experts == layer]
            ids = np.array([[key % residency.num_experts for key in keys]], np.int32)
            for _ in residency.fetch(layer, ids) or ():
                pass
        assert engine.streaming.stats().decode.misses == 0
        assert engine.streaming.stats().decode.hits == len(hot)
        assert io == "madvise" or told[-1] == (warming.experts, warming.experts)


def test_a_profile_of_another_model_is_refused():
    with open_engine("olmoe-q4_1") as other:
        profile = made_up(other)
    with open_engine("qwen3moe") as engine, pytest.raises(ProfileError, match="not of qwen3moe"):
        engine.stream(plan(1 << 14), options_of(), profile)


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_a_disk_error_while_a_profile_is_read_leaves_nothing_behind(io, monkeypatch, tokens):
    with open_engine("qwen3moe") as engine:
        profile = made_up(engine)
        expected = engine.session().forward(tokens[:3])
        make = ExpertReader.__init__

        def broken(self, *args, **kwargs):
            make(self, *args, **kwargs)
            self.inject(error=errno.EIO)

        monkeypatch.setattr(ExpertReader, "__init__", broken)
        before = count("/dev/fd")
        with pytest.raises(StorageError, match="Input/output error"):
            engine.stream(plan(1 << 18), options_of(io=io), profile)
        assert engine.streaming is None
        assert count("/dev/fd") == before
        np.testing.assert_array_equal(engine.session().forward(tokens[:3]), expected)


@pytest.mark.parametrize("io", READ_METHODS)
def test_statistics_add_up(io, tokens):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io=io))
        logits(engine, tokens)
        stats = engine.streaming.stats()
        layers, k = engine.config.num_layers, engine.config.num_experts_per_tok
        assert stats.decode.hits + stats.decode.misses == (END - PROMPT) * layers * k
        assert stats.prefill.turns == 2 * layers
        assert stats.useful_bytes + stats.wasted_bytes <= stats.speculative_bytes
        assert 0 <= stats.decode.late <= stats.decode.misses
        assert stats.pinned_bytes <= max(stats.budget_bytes, 1 << 16)
        assert list(stats.recall) == list(range(1, layers))
        assert stats.to_dict()["decode"]["hit_rate"] == stats.decode.hit_rate


def test_statistics_stay_as_they_were_when_taken(tokens):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io="pread"))
        session = engine.session()
        session.forward(tokens[:5])
        stats = engine.streaming.stats()
        before = stats.to_dict()
        session.forward(tokens[5:10])
        assert engine.streaming.stats().to_dict() != before
    assert stats.to_dict() == before


def test_all_resident_once_everything_fits(tokens):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 30), options_of())
        logits(engine, tokens)
        misses = engine.streaming.stats().decode.misses
        logits(engine, tokens)
        assert engine.streaming.stats().decode.misses == misses


def test_no_dense_weight_is_left_to_the_page_cache():
    with open_engine("qwen3moe", "cpu") as engine:
        for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
            mapped = engine.file.tensor(name)
            held = engine.backend.vector(mapped)
            assert not np.shares_memory(held, mapped.data)
            np.testing.assert_array_equal(held.view(np.uint8), mapped.data)


def test_choices_are_told():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io="pread", prefetch=False))
        choices = engine.streaming.choices
        assert (choices.io, choices.pin, choices.prefetch_layers) == ("pread", "copy", 0)


@pytest.mark.parametrize(
    ("pin", "experts_bytes", "io"),
    [("auto", 1 << 30, "madvise"), ("copy", 1 << 30, "pread"), ("mlock", 1 << 14, "madvise")],
)
def test_auto_reads_into_the_page_cache_what_fits_there(pin, experts_bytes, io):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(experts_bytes), options_of(pin=pin))
        assert engine.streaming.choices.io == io


def test_auto_reads_around_the_page_cache_or_through_it_what_does_not_fit():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 14), options_of())
        assert engine.streaming.choices.io in ("direct", "pread")
        assert engine.streaming.choices.pin == "copy"


def test_sessions_tell_of_residency(tokens):
    with open_engine("qwen3moe") as engine:
        session = engine.session()
        assert session.residency is None
        engine.stream(plan(1 << 14), options_of())
        session.forward(tokens[:2])
        assert session.residency.prefill.turns == engine.config.num_layers


def test_a_dense_model_is_left_as_it_is():
    with open_engine("llama") as engine:
        engine.stream(plan(0), options_of())
        assert engine.streaming is None


def test_budget_is_taken_by_open(tokens, resident):
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, backend="reference", context_length=128, budget="1M") as engine:
        np.testing.assert_array_equal(logits(engine, tokens), resident["qwen3moe", "reference"])
        assert engine.streaming.plan is engine.plan
        assert engine.plan.budget_bytes == 1 << 20


@pytest.mark.parametrize(
    ("budget", "options", "streams"),
    [
        (None, None, False),
        (None, options_of(), False),
        ("auto", None, False),
        ("100%", None, False),
        ("100%", options_of(), True),
        ("1M", None, True),
    ],
)
def test_what_fits_is_streamed_only_if_asked_for(budget, options, streams):
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, backend="reference", budget=budget, streaming=options) as engine:
        assert (engine.streaming is not None) == streams
        assert (engine.plan is not None) == (budget is not None)


@pytest.mark.parametrize("policy", ["decay", "blend"])
def test_a_half_life_reaches_the_policies_that_have_one(policy):
    def doubling(options: StreamingOptions) -> float:
        return policy_factory(options)([1, 1], 2)._doubling

    assert doubling(options_of(policy=policy, half_life=7.0)) == 7
    assert doubling(options_of(policy=policy)) == HALF_LIFE


@pytest.mark.parametrize("io", READ_METHODS)
def test_events_tell_what_was_in_memory_when_the_layer_asked(io, tokens):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io=io))
        session = engine.session()
        events = []
        for token in tokens[:20]:
            session.forward([token], on_route=events.append)
        counts = engine.streaming.stats().decode
        resident = np.concatenate([event.resident for event in events])
        assert (resident.sum(), (~resident).sum()) == (counts.hits, counts.misses)
        assert io == "madvise" or counts.misses > 0


@pytest.mark.parametrize("split", [1.0, 0.5])
@pytest.mark.parametrize("io", READ_METHODS)
def test_contents_hold_the_hits_and_none_of_the_misses(io, split, tokens):
    with open_engine("qwen3moe") as engine:
        if io == "madvise" and split < 1:
            return
        engine.stream(plan(190_000), options_of(io=io, split=split))
        session, seen = engine.session(), []

        def look(event):
            contents = set(engine.streaming.residency.contents(event.layer))
            for expert, resident in zip(event.expert_ids[0], event.resident[0], strict=True):
                assert (int(expert) in contents) == resident
            seen.append(contents)

        for token in tokens[:20]:
            session.forward([token], on_route=look)
        assert io == "madvise" or max(map(len, seen)) > 0


def test_a_split_below_one_is_not_for_the_mapped_file():
    with open_engine("qwen3moe") as engine, pytest.raises(BudgetError, match="use pread or direct"):
        engine.stream(plan(1 << 16), options_of(io="madvise", split=0.5))


@pytest.mark.parametrize("split", [0.0, 1.5, "most"])
def test_a_split_that_cannot_be_is_refused(split):
    with (
        open_engine("qwen3moe") as engine,
        pytest.raises(BudgetError, match=r"expected auto, or a number of 0\.01 to 1"),
    ):
        engine.stream(plan(1 << 16), options_of(split=split))


def test_a_split_finds_a_part_of_more_experts_in_memory(tokens):
    found = []
    for split in (1.0, 0.3):
        with open_engine("qwen3moe") as engine:
            engine.stream(plan(190_000), options_of(io="direct", split=split, prefetch=False))
            assert set(engine.streaming.choices.split.values()) == ({split} if split < 1 else set())
            logits(engine, tokens)
            counts = engine.streaming.stats().decode
            found.append((counts.hits, counts.demand_bytes))
    (hits, read), (more_hits, more_read) = found
    assert more_hits > hits
    assert more_read != read


@pytest.mark.parametrize(
    "choice",
    [{"policy": "best"}, {"layer_budget": "best"}, {"io": "telepathy"}, {"split": 2}],
)
def test_unknown_choices_name_the_known(choice):
    with pytest.raises(BudgetError, match="expected "):
        StreamingOptions(**choice)


def test_experts_of_two_sizes_do_not_share_slots():
    assert size_classes({0: 1530, 1: 1340, 2: 1339, 3: 1530, 4: 1500}) == {
        1530: [0, 3, 4],
        1340: [1, 2],
    }


def count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


@pytest.fixture
def copied(tmp_path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes((GOLDEN / "qwen3moe.gguf").read_bytes())
    return path


@pytest.mark.parametrize("io", READ_METHODS)
def test_a_file_cut_short_while_it_runs_is_an_error(copied, io, tokens):
    with Engine.open(copied, backend="reference", context_length=128) as engine:
        engine.stream(plan(1 << 14), options_of(io=io))
        session = engine.session()
        session.forward(tokens[:10])
        os.truncate(copied, copied.stat().st_size // 2)
        with pytest.raises(ModelFormatError, match="open it again"):
            session.forward(tokens[10:11])


def test_a_file_replaced_while_it_runs_does_no_harm(copied, tokens, resident, tmp_path):
    with Engine.open(copied, backend="reference", context_length=128) as engine:
        engine.stream(plan(1 << 14), options_of())
        other = tmp_path / "other"
        other.write_bytes(b"no model")
        other.replace(copied)
        np.testing.assert_array_equal(logits(engine, tokens), resident["qwen3moe", "reference"])


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_a_disk_error_is_an_error_and_the_next_try_works(io, tokens):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 14), options_of(io=io))
        session = engine.session()
        session.forward(tokens[:10])
        expected = session.forward(tokens[10:20])
        session.truncate(10)
        engine.streaming.residency.reader.inject(error=errno.EIO)
        with pytest.raises(StorageError, match="Input/output error"):
            session.forward(tokens[10:20])
        engine.streaming.residency.reader.inject()
        np.testing.assert_array_equal(session.forward(tokens[10:20]), expected)


def test_opening_and_closing_leaves_nothing_behind(tokens):
    def held() -> tuple[int, int, str]:
        status = Path("/proc/self/status")
        locked = "".join(
            line for line in status.read_text().splitlines() if line.startswith("VmLck")
        )
        return count("/dev/fd"), count("/proc/self/task"), locked

    if sys.platform != "linux":
        pytest.skip("counts by /proc")
    with open_engine("qwen3moe") as engine:  # what is opened once for all
        engine.stream(plan(1 << 16), options_of())
        logits(engine, tokens)
    before = held()
    for turn in range(200):
        with open_engine("qwen3moe") as engine:
            engine.stream(plan(1 << 16), options_of(io=READ_METHODS[turn % 3]))
            engine.session().forward(tokens[:3])
    deadline = time.monotonic() + 5
    while held() != before and time.monotonic() < deadline:
        time.sleep(0.01)  # the system may list a thread for a moment after it was joined
    assert held() == before


_LIMITED = """
import ctypes, resource, sys
from moestream.engine.engine import Engine
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
def drop_right_to_lock():
    # Root may lock what it likes, by CAP_IPC_LOCK (14); capget(2) of version 3.
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 14)
    assert libc.capset(header, sets) == 0
limit = int(sys.argv[2])
with Engine.open(sys.argv[1], backend="reference", context_length=128) as engine:
    session = engine.session()
    resident = session.forward([1, 2, 3])
    session.truncate(0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    drop_right_to_lock()
    plan = MemoryPlan(1 << 30, 0, 1 << 20, 0, 1 << 30, 1, 1)
    engine.stream(plan, StreamingOptions(io="madvise", pin="mlock"))
    streamed = session.forward([1, 2, 3])
    print(engine.streaming.choices.pin, (streamed == resident).all())
"""


@pytest.mark.parametrize(
    ("limit", "pin"),
    [(0, "none"), (40 << 10, "mlock"), (8 << 20, "mlock"), (resource.RLIM_INFINITY, "mlock")],
)
def test_a_pin_limit_is_lived_with(limit, pin):
    path = GOLDEN / "qwen3moe.gguf"
    command = [sys.executable, "-c", _LIMITED, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "not allowed to raise maximum limit" in done.stderr:
        pytest.skip(f"this process may not raise its limit of locked memory to {limit}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [pin, "True"]


_STALLED = """
import signal, sys
# A job in the background of a shell starts with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from moestream.engine.engine import Engine
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
with Engine.open(sys.argv[1], backend="reference", context_length=128) as engine:
    engine.stream(MemoryPlan(1 << 30, 0, 0, 0, 1 << 14, 1, 1), StreamingOptions(io="pread"))
    engine.streaming.residency.reader.inject(delay_s=60)
    print("waiting", flush=True)
    try:
        engine.session().forward([1, 2, 3])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_stall():
    with subprocess.Popen(
        [sys.executable, "-c", _STALLED, str(GOLDEN / "qwen3moe.gguf")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert out == "interrupted\n"
        assert process.returncode == 0
