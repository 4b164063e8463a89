"""What becomes of a run on several ranks of which one fails: a line that says so, and the end."""

import re
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from ranks import Ranks, free_ports

from moestream.gguf import GGUFFile

pytestmark = pytest.mark.alone
IN_TIME_S = 10
OTHER = "rank 1 (127.0.0.1)"
VERSION = (
    "import moestream.ranks.hello as hello; hello.__version__ = '0.0.1'; "
    "from moestream.__main__ import main; main()"
)

IN_FOLDER = (
    "-c",
    "import os, sys; os.chdir(sys.argv.pop(1)); from moestream.__main__ import main; main()",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_alphabet_model(tmp_path_factory.mktemp("model") / "abc.gguf", layers=3)


def generate(model: Path, *options: str, prompt: str = "0", tokens: int = 100_000) -> list[str]:
    """Digits follow each other for ever."""
    told = ("-p", prompt, "-n", str(tokens), "--raw", "--temp", "0", "-c", "200000")
    return ["-m", "moestream", "generate", str(model), *told, *options]


def generate_in(folder: Path) -> list[str]:
    """The same in a folder of its own, as hosts have."""
    return [*IN_FOLDER, str(folder), *generate(Path("abc.gguf"))[2:]]


def error_of(ranks: Ranks, since: float) -> str:
    """The one line that the first rank writes, in time."""
    _, told = ranks.end()
    assert time.monotonic() - since < IN_TIME_S
    assert ranks.first.returncode == 1
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in told
    assert "[ring]" not in told
    return errors[0]


@pytest.fixture
def running(tmp_path, model):
    """Two ranks that have begun to write."""
    with Ranks(tmp_path, [generate(model)] * 2) as ranks:
        assert ranks.first.stdout.read(20) == "12345678901234567890"
        yield ranks


@pytest.mark.parametrize("launcher", [False, True])
def test_a_rank_that_dies(running, launcher):
    running.processes[1].kill()
    if launcher:  # as mlx.launch does, with all others
        running.first.terminate()
    told = error_of(running, time.monotonic())
    assert f"{OTHER} has ended or cannot be reached" in told
    running.codes()


@pytest.mark.slow
def test_a_rank_that_hangs(running):
    running.processes[1].send_signal(signal.SIGSTOP)
    told = error_of(running, time.monotonic())
    assert f"{OTHER} has not answered for 6 s" in told
    running.processes[1].send_signal(signal.SIGCONT)  # it learns that it is alone, and ends
    assert running.codes()[1] == 1


@pytest.mark.slow
def test_the_first_rank_dies(running):
    running.first.kill()
    _, told = running.processes[1].communicate(timeout=IN_TIME_S)
    assert "error: rank 0 (127.0.0.1) has ended or cannot be reached" in told
    assert running.codes()[1] == 1


@pytest.mark.slow
def test_the_first_rank_is_interrupted(running):
    running.processes[1].send_signal(signal.SIGINT)  # a terminal sends it to all
    running.first.send_signal(signal.SIGINT)
    running.first.communicate(timeout=IN_TIME_S)
    assert running.codes() == [130, 0]


@pytest.mark.slow
def test_an_interrupt_does_not_wait(running):
    """Not for rows that are away either: here they never come."""
    running.processes[1].send_signal(signal.SIGSTOP)
    time.sleep(0.3)  # until it is asked for a token that it does not make
    running.first.send_signal(signal.SIGINT)
    running.first.communicate(timeout=IN_TIME_S)
    assert running.first.returncode == 130
    running.processes[1].send_signal(signal.SIGCONT)
    assert running.codes() == [130, 0]


@pytest.mark.slow
def test_a_middle_rank_that_dies(tmp_path, model):
    with Ranks(tmp_path, [generate(model)] * 3) as ranks:
        assert ranks.first.stdout.read(20)
        ranks.processes[1].kill()
        assert f"{OTHER} has ended" in error_of(ranks, time.monotonic())
        ranks.codes()


@pytest.mark.slow
def test_a_rank_that_does_not_come(tmp_path, model):
    since = time.monotonic()
    with Ranks(tmp_path, [generate(model)], ranks=2) as ranks:
        _, told = ranks.end()
        assert time.monotonic() - since < IN_TIME_S
        assert told.startswith(f"error: {OTHER} did not join within 8 s; see that")


def refused(folder: Path, *commands: list[str]) -> str:
    """What the first rank says of ranks that do not fit together; all of them end."""
    with Ranks(folder, commands) as ranks:
        told = error_of(ranks, time.monotonic())
        assert all(code in (0, 1) for code in ranks.codes())
    return told


@pytest.mark.slow
def test_another_version(tmp_path, model):
    other = ["-c", VERSION, *generate(model)[2:]]
    assert f"{OTHER} runs moestream 0.0.1" in refused(tmp_path, generate(model), other)


def test_another_file(tmp_path, model):
    other = write_alphabet_model(tmp_path / "abc.gguf", layers=2)
    commands = [generate_in(path.parent) for path in (model, other)]
    assert f"{OTHER} has another file: abc.gguf of " in refused(tmp_path, *commands)


@pytest.mark.slow
def test_a_file_that_is_not_there(tmp_path, model):
    (tmp_path / "empty").mkdir()
    commands = [generate_in(folder) for folder in (model.parent, tmp_path / "empty")]
    assert f"{OTHER}: no model is called 'abc.gguf'" in refused(tmp_path, *commands)


@pytest.mark.slow
def test_too_little_memory(tmp_path, model):
    command = generate(model, "--hosts-share", "900M,100M")
    told = refused(tmp_path, command, command)
    assert re.search(r"rank 1 \(127.0.0.1\) has too little memory: 100M for layers", told)


@pytest.mark.slow
def test_other_bytes(tmp_path, model):
    """Under the same header, in what the second rank reads."""
    other = tmp_path / "abc.gguf"
    data = bytearray(model.read_bytes())
    with GGUFFile.open(model) as file:
        info = file.tensors["blk.2.ffn_down_exps.weight"]
    data[info.offset] ^= 1
    other.write_bytes(data)
    commands = [
        [*generate_in(folder), "--verify", "full"] for folder in (model.parent, other.parent)
    ]
    assert f"{OTHER} has other bytes in its copy" in refused(tmp_path, *commands)


@pytest.mark.slow
def test_the_same_bytes(tmp_path, model):
    command = generate(model, "--verify", "full", tokens=5)
    with Ranks(tmp_path, [command] * 2) as ranks:
        out, told = ranks.end()
        assert ranks.codes() == [0, 0], told
    assert out == "12345\n"


@pytest.mark.slow
def test_the_prompt_is_the_first_ranks(tmp_path, model):
    """Its file need not be on other hosts."""
    (tmp_path / "prompt.txt").write_text("3")
    (tmp_path / "other").mkdir()
    told = ["-f", "prompt.txt", "-n", "4", "--raw", "--temp", "0"]
    commands = [
        [*IN_FOLDER, str(folder), "generate", str(model), *told]
        for folder in (tmp_path, tmp_path / "other")
    ]
    with Ranks(tmp_path, commands) as ranks:
        out, told = ranks.end()
        assert ranks.codes() == [0, 0], told
    assert out == "4567\n"


@pytest.mark.slow
def test_shares_for_another_number(tmp_path, model):
    command = generate(model, "--hosts-share", "300M")
    assert "--hosts-share has 1 amounts for 2 machines" in refused(tmp_path, command, command)


@pytest.mark.slow
def test_no_cold_start_of_all(tmp_path, model):
    command = ["-m", "moestream", "bench", str(model), "-p", "0", "-n", "2", "--cold"]
    assert "on the first of 2 machines alone" in refused(tmp_path, command, command)


@pytest.mark.slow
def test_what_is_of_a_whole_model(tmp_path, model):
    command = generate(model, "--trace", str(tmp_path / "x.route.csv.gz"))
    assert "record it on one machine" in refused(tmp_path, command, command)


@pytest.mark.slow
def test_a_chat_keeps_its_conversation(tmp_path, model, monkeypatch):
    monkeypatch.setenv("MOESTREAM_STATE", str(tmp_path))
    command = ["-m", "moestream", "chat", str(model), "--temp", "0"]
    with Ranks(tmp_path, [command] * 2, stdin=subprocess.PIPE) as ranks:
        ranks.first.stdin.write("x\n")
        ranks.first.stdin.flush()
        assert ranks.first.stdout.read(len(ALPHABET)) == ALPHABET
        ranks.processes[1].kill()
        ranks.first.stdin.write("y\n")
        ranks.first.stdin.flush()
        assert f"{OTHER} has ended" in error_of(ranks, time.monotonic())
    (kept,) = (tmp_path / "chats").glob("*.json")
    assert ALPHABET in kept.read_text("utf-8")


@pytest.mark.slow
def test_a_servers_interrupt_does_not_wait(tmp_path, model):
    """For rows that are away and, here, never come back: its client is told."""
    (port,) = free_ports(1)
    command = ["-m", "moestream", "serve", str(model), "--port", str(port), "-c", "200000"]
    with Ranks(tmp_path, [command] * 2) as ranks:
        assert f":{port}" in ranks.first.stderr.readline()
        asked = {"prompt": "0", "stream": True, "max_tokens": 100_000, "temperature": 0}
        url = f"http://127.0.0.1:{port}/v1/completions"
        with httpx2.stream("POST", url, json=asked, timeout=IN_TIME_S) as answer:
            lines = answer.iter_lines()
            assert any('"text"' in line for line in lines)
            ranks.processes[1].send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            ranks.first.send_signal(signal.SIGINT)
            assert [*lines][-2] == "data: [DONE]"
        ranks.end()
        assert ranks.first.returncode == 130
        ranks.processes[1].send_signal(signal.SIGCONT)
        assert ranks.codes()[1] == 0


@pytest.mark.slow
def test_a_server_ends(tmp_path, model):
    (port,) = free_ports(1)
    command = ["-m", "moestream", "serve", str(model), "--port", str(port)]
    with Ranks(tmp_path, [command] * 2) as ranks:
        assert f":{port}" in ranks.first.stderr.readline()
        ranks.processes[1].kill()
        assert f"{OTHER} has ended" in error_of(ranks, time.monotonic())
