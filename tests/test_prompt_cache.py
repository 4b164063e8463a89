"""Prompts on disk: the same bits as if they were read again, or nothing."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from streamed import GOLDEN

from moestream.chat.conversation import Conversation
from moestream.chat.dialogue import Dialogue
from moestream.chat.settings import Settings
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import StorageError, UnsupportedModelError
from moestream.prompt_cache import PromptCache, folder_of_all, stored_models
from moestream.prompt_cache import files as module
from moestream.prompt_cache.restoring import Restoring
from moestream.server import reading
from moestream.server.jobs import Ended, Job, Made
from moestream.server.scheduler import Scheduler

NAMES = ("qwen3moe", "qwen3next", "deepseek2-v2", "lfm2moe")
TOKENS = np.random.default_rng(3).integers(1, 100, 900).tolist()
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


def open_engine(name: str = "qwen3moe", **options) -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend="cpu", context_length=1200, **options)


def store(engine: Engine, tokens: list[int], limit: int = 1 << 30, trouble=None) -> None:
    """Read tokens and have them written."""
    session = engine.session()
    session.forward(tokens)
    with PromptCache(engine, limit, on_trouble=trouble or pytest.fail) as stored:
        stored.save(session.tokens, session.cache)


def restored(engine: Engine, tokens: list[int], more_than: int = 0):
    with PromptCache(engine, 1 << 30) as stored:
        return stored.restore(tokens, more_than=more_than)


def continued(engine: Engine, tokens: list[int], cache) -> np.ndarray:
    """Logits of what is left of tokens, on top of a cache."""
    session = engine.session()
    if cache is not None:
        session.adopt(tokens, cache)
    return session.forward(tokens[len(session.tokens) :])


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_in_another_run_has_the_same_bits(name: str) -> None:
    with open_engine(name) as engine:
        store(engine, TOKENS)
    tokens = [*TOKENS[:800], *TOKENS[:50]]
    with open_engine(name) as engine:
        cache = restored(engine, tokens)
        assert cache.length == 768
        fresh = continued(engine, tokens, None)
        np.testing.assert_array_equal(continued(engine, tokens, cache), fresh[768:])


def test_what_waits_need_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    put, begun, written = module.BlockFiles.put, threading.Event(), []

    def slow(files: module.BlockFiles, name: str, data: np.ndarray) -> None:
        begun.set()
        with stored._changed:
            assert stored._changed.wait_for(lambda: stored._closing, 10)
        written.append(name)
        put(files, name, data)

    monkeypatch.setattr(module.BlockFiles, "put", slow)
    with open_engine() as engine, PromptCache(engine, 1 << 30) as stored:
        session = engine.session()
        session.forward(TOKENS)
        for length in (900, 600):
            stored.save(TOKENS[:length], session.cache)
        assert begun.wait(10)
        stored.close(write=False)
    assert len(written) == 1


def test_one_token_at_least_is_left_to_run() -> None:
    with open_engine() as engine:
        store(engine, TOKENS[:512])
        assert restored(engine, TOKENS[:512]).length == 256
        assert restored(engine, TOKENS[:513]).length == 512
        assert restored(engine, TOKENS[:256]) is None


def test_what_is_in_memory_already_is_not_read() -> None:
    with open_engine() as engine:
        store(engine, TOKENS)
        assert restored(engine, TOKENS, more_than=768) is None
        assert restored(engine, TOKENS, more_than=767).length == 768


def test_conversations_that_begin_alike_share_their_blocks(folder: Path) -> None:
    with open_engine() as engine:
        store(engine, TOKENS[:512])
        store(engine, [*TOKENS[:256], *TOKENS[600:900]])
    assert len(list(folder.glob("*/*.kv"))) == 3
    (told,) = stored_models()
    assert (told.title, told.n_tokens) == ("qwen3moe.gguf", 768)


@pytest.mark.parametrize(
    "options", [{"cache_type_k": "f32"}, {"backend": "reference"}, {"context_length": 1300}]
)
def test_what_is_computed_or_kept_otherwise_is_another_model(options) -> None:
    with open_engine() as engine:
        store(engine, TOKENS)
    values = {"backend": "cpu", "context_length": 1200} | options
    with Engine.open(GOLDEN / "qwen3moe.gguf", **values) as engine:
        assert restored(engine, TOKENS) is None


def test_weights_that_differ_anywhere_are_another_model(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    data = bytearray((GOLDEN / "qwen3moe.gguf").read_bytes())
    model.write_bytes(data)
    with Engine.open(model, backend="cpu", context_length=1200) as engine:
        store(engine, TOKENS)
        last = max(engine.file.tensors.values(), key=lambda info: info.offset)
    with Engine.open(model, backend="cpu", context_length=1200) as engine:
        assert restored(engine, TOKENS) is not None
    data[last.offset + last.n_bytes - 1] ^= 1
    model.write_bytes(data)
    with Engine.open(model, backend="cpu", context_length=1200) as engine:
        assert restored(engine, TOKENS) is None


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
@pytest.mark.parametrize("harm", ["flip", "header", "cut", "longer", "empty"])
def test_damage_is_found_and_costs_what_was_damaged(folder: Path, name: str, harm: str) -> None:
    with open_engine(name) as engine:
        store(engine, TOKENS)
    for path in sorted(folder.glob("*/*.kv"), key=lambda path: path.stat().st_mtime)[:2]:
        data = bytearray(path.read_bytes())  # the last of the chain, and what goes with it
        if harm == "flip":
            data[len(data) // 2] ^= 4
        elif harm == "header":
            data[3] ^= 4
        data = {"cut": data[:-1], "longer": data + b"x", "empty": b""}.get(harm, data)
        path.write_bytes(data)
    with open_engine(name) as engine:
        cache = restored(engine, TOKENS)
        fresh = continued(engine, TOKENS, None)
        kept = 0 if cache is None else cache.length
        assert kept < 768
        np.testing.assert_array_equal(continued(engine, TOKENS, cache), fresh[kept:])
        assert restored(engine, TOKENS, more_than=kept) is None  # what was wrong has gone


def test_a_disk_that_is_full_is_told_once_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    with open_engine() as engine:
        session = engine.session()
        session.forward(TOKENS)
        stored = PromptCache(engine, 1 << 30, on_trouble=told.append)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            for _ in range(3):
                stored.save(session.tokens, session.cache)
            stored.close()
    assert told == ["prompts are not stored any more: No space left on device"]
    assert [path.name for path in folder.glob("*/*")] == ["model.txt"]


def test_what_is_removed_beside_a_run_is_written_again(folder: Path) -> None:
    with open_engine() as engine:
        store(engine, TOKENS[:300])
        session = engine.session()
        session.forward(TOKENS)
        with PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored:
            module.remove(next(folder.iterdir()).name)
            assert stored.restore(TOKENS, more_than=0) is None
            stored.save(session.tokens, session.cache)
        assert restored(engine, TOKENS).length == 768


def test_a_limit_holds_for_two_that_write(folder: Path) -> None:
    with open_engine() as engine:
        block = engine.caches.stores.block_bytes + 64
        caches = [PromptCache(engine, 8 * block, on_trouble=pytest.fail) for _ in range(2)]
        for number in range(10):
            session = engine.session()
            session.forward([number + 1, *TOKENS[:600]])
            caches[number % 2].save(session.tokens, session.cache)
            while caches[number % 2]._waiting:
                pass
        for stored in caches:
            stored.close()
        assert sum(path.stat().st_size for path in folder.glob("*/*.kv")) <= 9 * block


def test_a_folder_that_cannot_be_made_is_an_error(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder")
    with open_engine() as engine, pytest.raises(StorageError, match="--prompt-cache off"):
        PromptCache(engine, 1 << 30)


def test_leftovers_of_a_killed_run_go(folder: Path) -> None:
    with open_engine() as engine:
        store(engine, TOKENS[:300])
        own = next(folder.iterdir())
        dead, alive = own / ".a.kv.999999999.tmp", own / f".b.kv.{os.getpid()}.tmp"
        dead.write_text("x")
        alive.write_text("x")
        store(engine, TOKENS[:300])
    assert not dead.exists()
    assert alive.exists()


def test_what_was_not_used_for_longest_goes_first(folder: Path) -> None:
    with open_engine() as engine:
        block = engine.caches.stores.block_bytes + 64
        store(engine, TOKENS[:512])
        other = [5, *TOKENS[:511]]
        store(engine, other, limit=3 * block)
        assert sum(path.stat().st_size for path in folder.glob("*/*.kv")) <= 3 * block
        assert restored(engine, [*other, 1]).length == 512
        assert restored(engine, TOKENS[:513]) is None  # its beginning stays, or all goes


def test_the_end_of_a_chain_goes_before_its_beginning(folder: Path) -> None:
    with open_engine() as engine:
        store(engine, TOKENS)
        block = engine.caches.stores.block_bytes + 64
        module.prune(block)
        assert restored(engine, TOKENS).length == 256


def test_only_its_owner_can_read_it(folder: Path) -> None:
    with open_engine() as engine:
        store(engine, TOKENS)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.glob("*/*"):
        assert path.stat().st_mode & 0o077 == 0


def test_two_write_the_same_at_once(folder: Path) -> None:
    with open_engine() as engine:
        session = engine.session()
        session.forward(TOKENS)
        caches = [PromptCache(engine, 1 << 30, on_trouble=pytest.fail) for _ in range(2)]
        for stored in caches:
            stored.save(session.tokens, session.cache)
        threads = [threading.Thread(target=stored.close) for stored in caches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cache = restored(engine, TOKENS)
        fresh = continued(engine, TOKENS, None)
        np.testing.assert_array_equal(continued(engine, TOKENS, cache), fresh[768:])


def test_a_backend_without_blocks_says_so() -> None:
    pytest.importorskip("mlx.core")
    with (
        Engine.open(GOLDEN / "qwen3moe.gguf", backend="mlx") as engine,
        pytest.raises(UnsupportedModelError, match="'cpu' can"),
    ):
        PromptCache(engine, 1 << 30)


def test_a_conversation_goes_on_in_another_run(alphabet: Path) -> None:
    answers, turns = [], []
    for _ in range(2):
        with (
            Engine.open(alphabet, backend="cpu", context_length=2000) as engine,
            PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored,
        ):
            dialogue = Dialogue(engine, Conversation(), Settings(GREEDY), prompt_cache=stored)
            for _ in dialogue.ask("x" * 600, lambda: False):
                pass
            answers.append(dialogue.answer)
            turns.append(dialogue.conversation.turns[-1].answer)
    assert turns[0] == turns[1]
    assert answers[0].cached_tokens == 0
    assert answers[1].cached_tokens >= 512
    assert answers[1].stats.prompt_tokens == answers[1].prompt_tokens - answers[1].cached_tokens


def test_a_chat_does_not_wait_for_what_is_stored(alphabet: Path, monkeypatch) -> None:
    """As where another machine, which is asked for it, does not answer."""
    steps = []

    def endless(restoring: Restoring) -> bool:
        steps.append(restoring)
        assert len(steps) < 100
        return True

    with (
        Engine.open(alphabet, backend="cpu", context_length=2000) as engine,
        PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored,
    ):
        dialogue = Dialogue(engine, Conversation(), Settings(GREEDY), prompt_cache=stored)
        assert any([*dialogue.ask("x" * 600, lambda: False)])
    with (
        Engine.open(alphabet, backend="cpu", context_length=2000) as engine,
        PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored,
    ):
        monkeypatch.setattr(Restoring, "step", endless)
        dialogue = Dialogue(engine, Conversation(), Settings(GREEDY), prompt_cache=stored)
        assert not any([*dialogue.ask("x" * 600, lambda: len(steps) >= 3)])
        assert len(steps) == 3
        assert dialogue.answer.stop_reason == "interrupted"
        assert dialogue.conversation.turns == []


def test_a_server_goes_on_where_another_ended() -> None:
    made = []
    for cached in (0, 768):
        with (
            open_engine() as engine,
            PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored,
            Scheduler(engine, prompt_cache=stored) as scheduler,
        ):
            events, over = [], threading.Event()

            def deliver(new, events=events, over=over) -> None:
                events.extend(new)
                if isinstance(new[-1], Ended):
                    over.set()

            scheduler.submit(Job(prompt=TOKENS, sampling=GREEDY, max_tokens=4), deliver)
            assert over.wait(60)
            assert events[-1].usage.cached_tokens == cached
            made.append([event for event in events if isinstance(event, Made)])
    assert made[0] == made[1]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    environment = {"MOESTREAM_CACHE": str(tmp_path / "cache")}
    assert "nothing is kept" in run("cache", "list", env=environment).stderr
    with open_engine() as engine:
        store(engine, TOKENS)
    done = run("cache", "list", env=environment)
    assert "qwen3moe.gguf" in done.stdout
    assert "768" in done.stdout
    assert run("cache", "rm", "another", env=environment).returncode == 1
    assert run("cache", "rm", env=environment).returncode == 2
    done = run("cache", "rm", "qwen3moe.gguf", env=environment)
    assert done.returncode == 0, done.stderr
    assert not list(folder_of_all().iterdir())
    for size in ("3", "none", "x"):
        assert run("cache", "prune", size, env=environment).returncode != 0, size


def test_others_write_while_a_prompt_comes_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_RESTORE_S", 0.0)
    heard: dict[int, list] = {0: [], 1: [], 2: []}
    with open_engine() as engine:
        store(engine, TOKENS)
        with (
            PromptCache(engine, 1 << 30, on_trouble=pytest.fail) as stored,
            Scheduler(engine, prompt_cache=stored, threaded=False) as scheduler,
        ):
            submit = scheduler.submit
            submit(Job(prompt=[1, 2], sampling=GREEDY, max_tokens=99), heard[0].extend)
            scheduler.step()
            submit(Job(prompt=TOKENS, sampling=GREEDY, max_tokens=1), heard[1].extend)
            leaving = submit(Job(prompt=TOKENS[:600], sampling=GREEDY), heard[2].extend)
            before = scheduler.totals.passes
            scheduler.step()
            leaving.cancel()
            while not isinstance(heard[1][-1], Ended):
                scheduler.step()
            assert scheduler.totals.passes - before >= 3  # a block a step
            assert heard[1][-1].usage.cached_tokens == 768
            assert heard[2][-1].reason == "interrupted"
