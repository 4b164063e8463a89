"""The layer that predicts a further token: what it says, and that it changes no answer."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from further_layer import LAYER, MODELS, alone, with_layer
from streamed import GOLDEN

from moestream.engine import engine as engines
from moestream.engine.drafts.mtp import Further
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import UnsupportedModelError

PROMPT = np.random.default_rng(21).integers(0, 128, 40).tolist()
GREEDY = SamplingParams(temperature=0.0)


@cache
def path_of(name: str, folder: Path) -> Path:
    return with_layer(name).write(folder / f"{name}.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("further")


def open_engine(path: Path, draft: str = "mtp", **options) -> Engine:
    return Engine.open(path, backend="cpu", threads=1, draft=draft, context_length=128, **options)


def generate(engine: Engine, params=GREEDY, most: int = 30):
    session = engine.session()
    return list(session.generate(PROMPT, params, max_tokens=most)), session


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("params", [GREEDY, SamplingParams(temperature=1.5, top_k=0, seed=1)])
def test_no_token_changes(name: str, params, folder: Path) -> None:
    path = path_of(name, folder)
    with open_engine(path, "none") as plain, open_engine(path) as drafting:
        expected, _ = generate(plain, params)
        made, session = generate(drafting, params)
        assert made == expected
        assert session.stats.drafted_tokens >= 25
        again = session.forward([1, 2, 3])
        other = plain.session()
        other.forward([*PROMPT, *made[:-1]])
        np.testing.assert_array_equal(again, other.forward([1, 2, 3]))


class Fed(Further):
    """Tells what the layer was fed and what came of it."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.fed: dict[int, tuple[np.ndarray, int, np.ndarray]] = {}

    def _run(self, rows, nexts):
        start = self._seen
        out = super()._run(rows, nexts)
        self.fed |= {start + n: (rows[n], token, None) for n, token in enumerate(nexts)}
        self.fed[start + len(nexts) - 1] = (rows[-1], nexts[-1], self._layer.logits(out)[0])
        return out


@pytest.mark.parametrize("name", MODELS)
def test_it_says_what_it_would_as_a_model_of_its_own(name: str, folder: Path, monkeypatch) -> None:
    """Guesses of one token, all of them wrong or not: each place is fed in the end what is true."""
    with open_engine(path_of(name, folder)) as engine:
        drafts = engine.drafts
        fed = Fed(drafts._layer, drafts._caches)
        monkeypatch.setattr(drafts, "further", lambda: fed)
        made, session = generate(engine)
        states = engine.session()
        chunks = states._hidden(session.tokens, 512, None)
        hidden = [engine.model.output_norm(chunk) for chunk in chunks]
    tokens = [*PROMPT, *made]
    places = range(len(session.tokens) - 2)  # the last guess was made for the last but one
    hidden = np.concatenate(hidden)
    for place in places:
        np.testing.assert_array_equal(fed.fed[place][0], hidden[place])
        assert fed.fed[place][1] == tokens[place + 1]
    oracle = alone(name, hidden, tokens[1 : len(hidden) + 1]).write(folder / f"{name}-alone.gguf")
    with Engine.open(oracle, backend="cpu", threads=1, context_length=128) as engine:
        expected = engine.session().forward(list(places))
    told = [place for place in places if fed.fed[place][2] is not None]
    assert len(told) >= 25
    for place in told:
        np.testing.assert_allclose(fed.fed[place][2], expected[place], rtol=2e-3, atol=2e-3)


def test_its_memory_is_counted(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(engines, "process_memory", lambda: 1 << 26)
    path, plans = path_of("glm4moe", folder), []
    for draft in ("none", "mtp"):
        with open_engine(path, draft, budget="1G") as engine:
            plans.append(engine.plan.process_bytes)
            n_bytes = engine.drafts.n_bytes
    layer = sum(a.size for n, a in with_layer("glm4moe").arrays.items() if f"blk.{LAYER}." in n)
    assert plans[1] - plans[0] == n_bytes > 4 * layer


@pytest.mark.parametrize("name", ["qwen3moe", "glm4moe", "hy_v3"])
def test_a_file_without_it_is_told_what_to_do(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no such layer; use --draft ngram"):
        open_engine(GOLDEN / f"{name}.gguf")


def test_it_goes_on_after_what_it_has_not_seen(folder: Path) -> None:
    """A conversation that is cut back, and begun again from a cache of another session."""
    path = path_of("qwen3next", folder)
    found = []
    for draft in ("none", "mtp"):
        with open_engine(path, draft) as engine:
            made, session = generate(engine, most=9)
            session.truncate(20)
            made += session.generate([5, 6, 7], GREEDY, max_tokens=9)
            other = engine.session()
            other.adopt(session.tokens, session.cache.fork(session.cache.length))
            made += other.generate([4], GREEDY, max_tokens=9)
            found.append(made)
    assert found[0] == found[1]
