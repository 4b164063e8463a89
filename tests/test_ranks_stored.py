"""Prompts on disk where ranks share a model: each has its part, and a start finds what all have."""

import signal
import time
from pathlib import Path

import httpx2
import pytest
from alphabet_model import write_alphabet_model
from ranks import Ranks, free_ports
from streamed import GOLDEN

from moestream.engine.engine import Engine
from moestream.errors import RankError
from moestream.ranks.stored import StoredPart

pytestmark = pytest.mark.alone
PROGRAM = Path(__file__).with_name("rank_stored.py")
IN_TIME_S = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


@pytest.mark.parametrize(
    ("ranks", "names"),
    [
        (2, ("qwen3moe", "qwen3next")),
        pytest.param(3, ("gemma4", "lfm2moe"), marks=pytest.mark.slow),
    ],
)
def test_each_rank_stores_its_part_of_prompts(tmp_path, ranks, names):
    with Ranks(tmp_path, [[str(PROGRAM), *names]] * ranks) as running:
        _, told = running.end()
        assert running.first.returncode == 0, told
        assert running.codes() == [0] * ranks


def ask(port: int, prompt: str) -> dict:
    asked = {"prompt": prompt, "max_tokens": 4, "temperature": 0}
    url = f"http://127.0.0.1:{port}/v1/completions"
    return httpx2.post(url, json=asked, timeout=IN_TIME_S).json()


@pytest.mark.slow
@pytest.mark.parametrize("size", [[], ["--prompt-cache", "20M"]])
def test_a_server_finds_what_another_stored(tmp_path, folder, size):
    model, answers = write_alphabet_model(tmp_path / "abc.gguf", layers=3), []
    for _ in range(2):
        (port,) = free_ports(1)
        command = ["-m", "moestream", "serve", str(model), "--port", str(port), *size]
        with Ranks(tmp_path, [command] * 2) as ranks:
            assert f":{port}" in ranks.first.stderr.readline()
            answers.append(ask(port, "0123456789" * 60))
            started = time.monotonic()
            ranks.first.send_signal(signal.SIGINT)
            ranks.end()
            assert ranks.codes() == [130, 0]
            assert time.monotonic() - started < IN_TIME_S
    first, second = answers
    assert second["choices"][0]["text"] == first["choices"][0]["text"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 512
    assert len({path.parent for path in folder.glob("*/*.kv")}) == 2


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_names_its_host(tmp_path, monkeypatch):
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    (port,) = free_ports(1)
    file = tmp_path / "file"
    file.write_text("no folder")
    code = (
        "import os, sys; from moestream.__main__ import main; "
        f"os.environ['MOESTREAM_CACHE'] = {str(file)!r}; main()"
    )
    command = ["moestream", "serve", str(model), "--port", str(port)]
    with Ranks(tmp_path, [["-m", *command], ["-c", code, *command[1:]]]) as ranks:
        _, told = ranks.end()
        assert ranks.codes() == [1, 0]
    assert "error: rank 1 (127.0.0.1): prompts cannot be stored in" in told


SLOW = """
import sys, time
from moestream.__main__ import main
from moestream.errors import RankError
from moestream.prompt_cache.files import BlockFiles
from moestream.ranks.stored import StoredPart

seconds = float(sys.argv.pop(1))
BlockFiles.put = lambda *_: time.sleep(seconds)
do = StoredPart.do

def fails(stored, body, caches):
    do(stored, body, caches)
    if body["what"] == "save":
        raise RankError("it broke")

StoredPart.do = fails
main()
"""


@pytest.mark.slow
def test_a_failed_rank_is_told_of_before_prompts_are_written(tmp_path):
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    (port,) = free_ports(1)
    serve = ["serve", str(model), "--port", str(port), "-c", "20000"]
    with Ranks(tmp_path, [["-c", SLOW, seconds, *serve] for seconds in ("4", "30")]) as ranks:
        assert f":{port}" in ranks.first.stderr.readline()
        ask(port, "0123456789" * 110)
        started = time.monotonic()
        _, told = ranks.end()
        assert time.monotonic() - started < 10
        assert ranks.codes() == [1, 1]
    assert "error: rank 1 (127.0.0.1): it broke" in told


def test_what_is_not_known_is_an_error():
    with (
        Engine.open(GOLDEN / "qwen3moe.gguf", context_length=320) as engine,
        StoredPart(engine, "rank 1 (there)") as part,
    ):
        part.do({"what": "step", "number": 3}, {})
        with pytest.raises(RankError, match="'burn' cannot be done to prompts"):
            part.do({"what": "burn", "number": 3}, {})


def test_what_goes_wrong_elsewhere_is_told_with_the_next_answer(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=320) as engine:
        session, heard = engine.session(), {"what": "heed", "trouble": []}
        session.forward([1] * 300)
        with StoredPart(engine, "rank 1 (there)") as part:
            part.do({"what": "open", "limit": None, "models": [], "wrong": []}, {})
            monkeypatch.setattr(Path, "replace", full)
            part.do({"what": "save", "number": 3, "names": ["a"]}, {3: session.cache})
        part.do(heard, {})
    told = "prompts are not stored any more: No space left on device"
    assert heard["trouble"] == [f"rank 1 (there): {told}"]
