"""What each rank of a test runs: prompts that are stored must come back with the same bits.

``python rank_stored.py NAME...``, on all ranks with the same folder.
"""

import sys
import threading
from pathlib import Path

import numpy as np
from streamed import GOLDEN

from moestream import __version__
from moestream.engine.options import SamplingParams
from moestream.layers.cache import Cache
from moestream.prompt_cache import folder_of_all, names
from moestream.ranks.attending import attend
from moestream.ranks.joining import end_process, joined, open_shared
from moestream.ranks.link import Link
from moestream.ranks.prompts import SharedPrompts
from moestream.ranks.shared_engine import SharedEngine
from moestream.server.jobs import Ended, Failed, Job, Made
from moestream.server.scheduler import Scheduler

OPTIONS = {"threads": 1, "context_length": 1200, "budget": "auto"}
TOKENS = np.random.default_rng(3).integers(1, 100, 900).tolist()
LIMIT_S = 200
OTHER = [7, *TOKENS[:40]]
GREEDY = SamplingParams(temperature=0)


OTHER_BUILD = "?"
"""Behind a model's path: other ranks are to be of another build."""


def opened(link: Link, name: str, how: str = "") -> SharedEngine:
    path = GOLDEN / f"{name}.gguf"
    return open_shared(link, f"{path}{how}", path, OPTIONS)


def resolve(model: str) -> Path:
    """On other ranks."""
    names.__version__ = OTHER_BUILD if model.endswith(OTHER_BUILD) else __version__
    return Path(model.removesuffix(OTHER_BUILD))


def continued(engine: SharedEngine, cache: Cache | None) -> np.ndarray:
    """Logits of the tokens that a cache has not, on top of it."""
    session = engine.session()
    if cache is not None:
        session.adopt(TOKENS, cache)
    return session.forward(TOKENS[len(session.tokens) :])


def served(engine: SharedEngine, stored: SharedPrompts | None) -> tuple[list, int]:
    """What two requests at once come to, and how much of the long one was stored."""
    heard: list[list] = [[], []]
    over = [threading.Event(), threading.Event()]

    def hear(number: int, events: list) -> None:
        heard[number] += events
        if isinstance(events[-1], Ended | Failed):
            over[number].set()

    with Scheduler(engine, prompt_cache=stored) as scheduler:
        for number, (prompt, length) in enumerate(((OTHER, 40), (TOKENS, 6))):
            job = Job(prompt=prompt, sampling=GREEDY, max_tokens=length)
            scheduler.submit(job, lambda events, number=number: hear(number, events))
        assert all(each.wait(LIMIT_S) for each in over)
    assert isinstance(heard[1][-1], Ended), heard
    made = [[event for event in events if isinstance(event, Made)] for events in heard]
    return made, heard[1][-1].usage.cached_tokens


def folders(stored: SharedPrompts) -> list[Path]:
    """Where others keep theirs."""
    return [each for each in folder_of_all().iterdir() if each != stored.files.folder]


def newest(folder: Path) -> Path:
    """The last block of what is stored, or its state."""
    return min(folder.glob("*.kv"), key=lambda path: path.stat().st_mtime)


def restored(stored: SharedPrompts) -> tuple[Cache | None, int]:
    cache = stored.restore(TOKENS, more_than=0)
    return cache, 0 if cache is None else cache.length


def check(link: Link, name: str) -> None:
    known = set(folder_of_all().iterdir()) if folder_of_all().exists() else set()
    with opened(link, name) as engine:
        fresh, answers = continued(engine, None), served(engine, None)[0]
    for cached in (0, 768):
        with opened(link, name) as engine, SharedPrompts(engine) as stored:
            assert served(engine, stored) == (answers, cached)
    with opened(link, name) as engine, SharedPrompts(engine) as stored:
        cache, length = restored(stored)
        assert length == 768
        np.testing.assert_array_equal(continued(engine, cache), fresh[768:])
        others = [each for each in folders(stored) if each not in known]
        assert len(others) == link.size - 1
        damage(engine, stored, others[-1], fresh)
    for cached in (0, 768):  # what only others lacked is stored again
        with opened(link, name) as engine, SharedPrompts(engine) as stored:
            assert served(engine, stored) == (answers, cached)
            folder, before = stored.files.folder, set(stored.files.folder.glob("*.kv"))
    with opened(link, name, OTHER_BUILD) as engine, SharedPrompts(engine) as stored:
        assert served(engine, stored) == (answers, 0)
    # What the first computed is as it was, and yet not mixed with what others make of it now.
    assert len(set(folder.glob("*.kv")) - before) >= 3


def damage(engine: SharedEngine, stored: SharedPrompts, other: Path, fresh: np.ndarray) -> None:
    """What one rank has no more is restored on none; here, all is as it was."""
    here = sorted(stored.files.folder.glob("*.kv"))
    path = newest(other)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    for expected in (0 if engine.caches.recurrent else 512, 512):  # it is found out once
        cache, length = restored(stored)
        assert length == expected, (length, expected)
        np.testing.assert_array_equal(continued(engine, cache), fresh[length:])
    for path in other.glob("*.kv"):
        path.unlink()
    assert restored(stored) == (None, 0)
    assert sorted(stored.files.folder.glob("*.kv")) == here


def main(*models: str) -> None:
    link = joined()
    if link.rank:
        attend(link, OPTIONS, resolve)
        return
    for name in models:
        check(link, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_process(0)
