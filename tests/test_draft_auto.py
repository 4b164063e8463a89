"""``auto`` with a model's own layer for further tokens: what it is fed, and when it is left out."""

from pathlib import Path

import numpy as np
import pytest
from further_layer import MODELS, with_layer
from streamed import GOLDEN
from test_scheduler import Heard

from moestream.engine import engine as engines
from moestream.engine.drafts.mtp import Further
from moestream.engine.drafts.paying import Paying
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.server.jobs import Job
from moestream.server.scheduler import Scheduler

PROMPT = np.random.default_rng(31).integers(0, 128, 70).tolist()
SAMPLED = SamplingParams(temperature=1.5, top_k=0, seed=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auto")


def path_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.gguf"
    return path if path.exists() else with_layer(name).write(path)


def open_engine(path: Path, draft: str, **options) -> Engine:
    return Engine.open(path, backend="cpu", threads=1, draft=draft, context_length=192, **options)


class Eager(Paying):
    """Always tries the model's own layer, now and then, with more or fewer tokens."""

    def __init__(self) -> None:
        super().__init__(lambda kind: 0.5)
        self.turn = 0

    def choose(self, options):
        self.turn += 1
        most = {option.kind: option.most for option in options}[0]
        return 0, min((3, 0, 1, 0, 0)[self.turn % 5], most)


def answers(engine: Engine) -> tuple[list[int], int]:
    """Two answers of a conversation that is cut back between them; and how much was guessed."""
    session = engine.session()
    made = list(session.generate(PROMPT, SAMPLED, max_tokens=50))
    session.truncate(30)
    made += session.generate([5, 6, 7], SAMPLED, max_tokens=50)
    return made, session.stats.drafted_tokens


@pytest.mark.parametrize("name", MODELS)
def test_no_token_changes(name: str, folder: Path) -> None:
    path = path_of(name, folder)
    with open_engine(path, "none") as plain, open_engine(path, "auto") as engine:
        engine.drafts.paying = Eager()
        made, guessed = answers(engine)
        assert made == answers(plain)[0]
        assert guessed > 50


@pytest.mark.parametrize("draft", ["auto", "mtp"])
@pytest.mark.parametrize("name", MODELS)
def test_nor_in_the_server(name: str, draft: str, folder: Path) -> None:
    heard = []
    for kind in ("none", draft):
        with open_engine(path_of(name, folder), kind) as engine:
            engine.drafts.paying = Eager()
            with Scheduler(engine, threaded=False) as scheduler:
                each = [Heard() for _ in range(3)]
                for number, one in enumerate(each):  # together, until one of them is left
                    prompt, most = [*PROMPT[number:], *PROMPT], 10 + 15 * number
                    scheduler.submit(Job(prompt=prompt, sampling=SAMPLED, max_tokens=most), one)
                while not all(one.over.is_set() for one in each):
                    scheduler.step()
            heard.append(each)
    assert [one.made for one in heard[0]] == [one.made for one in heard[1]]
    assert heard[1][2].events[-1].usage.drafted_tokens > 5


def test_the_layer_is_fed_the_last_rows_that_wait_and_no_others(folder: Path, monkeypatch) -> None:
    fed = []
    run = Further._run

    def counted(self, rows, nexts):
        fed.append(len(nexts))
        return run(self, rows, nexts)

    monkeypatch.setattr(Further, "_run", counted)
    with open_engine(path_of("glm4moe", folder), "auto") as engine:
        session = engine.session()
        session.forward(PROMPT)
        assert not fed
        assert session.further is not None
        assert len(session.further.guess(session.tokens, 3, 2)) == 2
    assert fed == [32, 1]


def test_experts_that_have_no_room_want_its_memory_more(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(engines, "process_memory", lambda: 1 << 20)
    path, found = path_of("glm4moe", folder), {}
    for budget in ("1G", "4M"):
        for draft in ("none", "auto"):
            with open_engine(path, draft, budget=budget) as engine:
                found[budget, draft] = engine.plan.process_bytes, engine.plan.fits
                assert (engine.session().further is not None) == (
                    draft == "auto" and budget == "1G"
                )
    assert found["1G", "auto"] > found["1G", "none"]
    assert found["4M", "auto"] == found["4M", "none"]
    assert not found["4M", "auto"][1]


def test_a_file_without_it_is_guessed_by_its_text() -> None:
    with open_engine(GOLDEN / "qwen3moe.gguf", "auto") as engine:
        assert engine.session().further is None
        assert engine.drafts.kind == "auto"
