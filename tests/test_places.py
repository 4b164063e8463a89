"""Places that cannot be written, files with a mark at their beginning, two of one: said in time."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import run, start, wait_for_output

from moestream import folders as folders_module
from moestream.catalog import add_entry, entries, user_catalog
from moestream.chat.conversation import Conversation
from moestream.errors import ProfileError, TraceError
from moestream.folders import exclusive, scratch_folder, try_lock
from moestream.profiles import require_place
from moestream.traces.format import TraceHeader, read_trace
from moestream.traces.writer import RunFile, TraceWriter

BOM = b"\xef\xbb\xbf"
TRACE = Path(__file__).parent / "data" / "traces" / "qwen3-30b-a3b.route.csv.gz"
HEADER = TraceHeader(1, 4, 2, {0: 100}, model="m", arch="a")
SHORT = ("--raw", "-p", "0", "-n", "2", "--temp", "0")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A place where nothing can be made, not even by root: a file is in the way."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "sub"


# --- the log ---


@full
def test_a_log_on_a_full_disk_is_told_once(alphabet: Path) -> None:
    done = run("generate", alphabet, *SHORT, "--log-file", "/dev/full")
    assert done.returncode == 0
    assert done.stderr.count("/dev/full: No space left on device; nothing more is written") == 1
    assert "Traceback" not in done.stderr
    quiet = run("generate", alphabet, *SHORT, "--log-file", "/dev/full", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_python_never_shows_through(alphabet: Path, tmp_path: Path) -> None:
    program = (
        "import sys, warnings, logging\n"
        "from moestream import cli\n"
        "from moestream.cli.commands import version\n"
        "from moestream.errors import MoestreamWarning\n"
        "def broken(*a, **k):\n"
        "    warnings.warn('of NumPy', RuntimeWarning)\n"
        "    warnings.warn('of ours', MoestreamWarning)\n"
        "    logging.getLogger('moestream.x').warning('logged')\n"
        "    raise ValueError('odd')\n"
        "import moestream.models.summary as s\n"
        "s.summarize = broken\n"
        "cli.main()\n"
    )

    def told(*words: str | Path) -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", program, "inspect", alphabet, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr.splitlines()

    end = (
        "error: this should not have happened: ValueError: odd; please report it, with the log "
        "that --log-file FILE writes"
    )
    assert told() == (1, ["warning: of ours", "warning: logged", end])
    assert told("-q") == (1, [end])
    told("-q", "--log-file", tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert "of NumPy" in log
    assert "of ours" in log
    assert "Traceback" in log


# --- configuration ---


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (b"temp = [1, 2]", "temp is [1, 2]; one value was expected, not a list"),
        (b"temp = 2026-01-01", "temp is a date or time"),
        (b"stop = [[1]]", "stop is a list in a list"),
        (b"[generate.temp]\na = 1", "temp is a table"),
        (b"raw = 3", "raw is 3; true or false was expected"),
        (b"raw = 'yes'", "raw is 'yes'; true or false was expected"),
        (b"top-k = true", "'on'"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"\xff", "is not TOML"),
    ],
)
def test_a_config_of_wrong_types(
    config: bytes, complaint: str, alphabet: Path, tmp_path: Path
) -> None:
    (tmp_path / "config" / "config.toml").write_bytes(config)
    done = run("generate", alphabet, *SHORT)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_what_helps_runs_with_a_broken_config(alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "config" / "config.toml").write_text("seed = [")
    (tmp_path / "config" / "models.toml").write_text("[")
    done = run("doctor", "--no-measure")
    assert done.returncode == 0, done.stderr
    assert "config.toml is not TOML" in done.stdout
    assert "models.toml is not TOML" in done.stdout
    advice = json.loads(run("doctor", "--no-measure", "--json").stdout)["advice"]
    assert "edit the file" in advice[0]["what"]
    assert run("completion", "bash").returncode == 0
    assert run("generate", "--help").returncode == 0
    assert run("generate", alphabet, *SHORT).returncode == 1


def test_a_mark_at_the_beginning_is_no_text(alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "config" / "config.toml").write_bytes(BOM + b"temp = 0.0\n")
    entry = f'[mine]\nsource = "file:{alphabet}"\n'
    (tmp_path / "config" / "models.toml").write_bytes(BOM + entry.encode())
    (tmp_path / "prompt").write_bytes(BOM + b"0")
    words = ("--raw", "-f", tmp_path / "prompt", "-n", "1", "-q", "--json")
    done = run("generate", "mine", *words)
    assert json.loads(done.stdout)["prompt_tokens"] == 1, done.stderr
    saved = json.dumps({"messages": []}).encode()
    (tmp_path / "chat.json").write_bytes(BOM + saved)
    assert Conversation.load(tmp_path / "chat.json").turns == []
    with TraceWriter(tmp_path / "t.csv", HEADER) as writer:
        writer.record(0, 0, 0, 0, [[1, 2]], [[0.5, 0.5]])
    (tmp_path / "t.csv").write_bytes(BOM + (tmp_path / "t.csv").read_bytes())
    assert read_trace(tmp_path / "t.csv").header == HEADER


def test_two_who_add_models_at_once_lose_none(
    alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_slowly() -> str:
        text = read()
        time.sleep(0.05)
        return text

    read = entries._user_text
    monkeypatch.setattr(entries, "_user_text", read_slowly)
    with ThreadPoolExecutor(4) as pool:  # a lock of a file holds between threads too
        list(pool.map(lambda n: add_entry(f"m{n}", {"source": f"file:{alphabet}"}), range(4)))
    assert sorted(user_catalog()) == [f"m{number}" for number in range(4)]


def test_plan_needs_no_cache(alphabet: Path, closed: Path) -> None:
    done = run("plan", alphabet, "--json", env={"MOESTREAM_CACHE": str(closed)})
    assert done.returncode == 0, done.stderr


def test_who_waits_for_a_lock_that_is_deleted_takes_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    waiting, order = threading.Event(), []

    def wait() -> None:
        with exclusive(path, on_wait=waiting.set):
            order.append("second")
            assert try_lock(path) is None

    with ThreadPoolExecutor(1) as pool:
        with exclusive(path):
            later = pool.submit(wait)
            assert waiting.wait(10)
            path.unlink()  # as what removes a model does
            with exclusive(path):  # another comes, and is the first by now
                order.append("first")
                time.sleep(0.05)
        later.result()
    assert order == ["first", "second"]


def test_a_file_of_no_folder_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "none" / "x.json"
    with pytest.raises(FileNotFoundError) as caught:
        Conversation().save(path, model="m")
    assert caught.value.filename == str(path)


def test_what_a_killed_measurement_left_goes_with_the_next(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    parent = tmp_path / "cache"
    left = parent / f".scratch.{dead.pid}.tmp"
    left.mkdir(parents=True)
    (left / "experts.gguf").touch()
    with scratch_folder(parent) as folder:
        assert list(parent.iterdir()) == [folder]
    assert list(parent.iterdir()) == []


# --- traces and profiles ---


def test_a_figure_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    path = tmp_path / "none" / "x.png"
    done = run("simulate", TRACE, "--policy", "lru", "--budget", "10%", "--png", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [f"error: {path}: No such file or directory"]


@pytest.mark.parametrize("option", ["--trace", "--save-profile"])
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_place_that_cannot_be_is_known_before_the_model_is_loaded(
    option: str, command: str, alphabet: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x.json"
    done = run(command, alphabet, *(["-p", "0"] if command == "generate" else []), option, path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: ")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_refused_run_leaves_the_trace_that_was_there(
    name: str, alphabet: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    words = ("generate", alphabet, "--raw", "-n", "2", "-c", "16", "--trace", path)
    assert run(*words, "-p", "0").returncode == 0
    before = path.read_bytes()
    assert run(*words, "-p", "0" * 40).returncode == 1
    assert path.read_bytes() == before
    assert run(*words, "-p", "01").returncode == 0
    assert path.read_bytes() != before
    fresh = tmp_path / f"fresh-{name}"
    assert run(*words, "-p", "0" * 40, "--trace", fresh).returncode == 1
    assert not fresh.exists()


def test_two_runs_do_not_write_one_trace(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    endless = ("generate", alphabet, "--raw", "-p", "0", "--temp", "0", "--trace", path)
    first = start(*endless)
    try:
        wait_for_output(first.stdout)
        done = run(*endless, "-n", "1")
        assert done.returncode == 1
        assert "is writing it; give another file" in done.stderr
    finally:
        first.kill()
        first.communicate()
    options = ("--trace", path, "--trace-guesses", path)
    done = run("generate", alphabet, *SHORT, *options)
    assert done.returncode in (1, 2)


def test_a_run_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("head\nold")
    with RunFile(path, "head\n"):
        assert path.read_text() == "head\nold"
        with pytest.raises(TraceError, match="another run"):
            RunFile(path, "")
    assert path.read_text() == "head\nold"
    with RunFile(path, "head\n") as file:
        file.write("a\n")
    assert path.read_text() == "head\na\n"


def test_a_profile_that_cannot_be_written_is_known_before_the_work(
    alphabet: Path, closed: Path, tmp_path: Path
) -> None:
    for words in (
        ("profile", "save", closed / "p.json", "no-such-model.gguf", "-p", "x"),
        ("profile", "merge", closed / "p.json", "no-such-profile"),
    ):
        done = run(*words)
        assert done.returncode == 1
        assert "p.json: cannot be written: Not a directory" in done.stderr
    done = run("generate", alphabet, *SHORT, "--save-profile", closed / "p.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be written" in done.stderr
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ProfileError, match=r"d\.json: cannot be written: Is a directory"):
        require_place(tmp_path / "d.json")


# --- what holds something else is not written over ---


@pytest.mark.parametrize("option", ["--trace", "--log-file"])
def test_a_model_is_not_written_over(option: str, alphabet: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(alphabet.read_bytes())
    done = run("generate", model, *SHORT, option, model)
    assert done.returncode != 0
    assert "left as it is" in done.stderr
    assert model.read_bytes() == alphabet.read_bytes()


@pytest.mark.parametrize("option", ["--trace", "--save-profile"])
def test_a_prompt_is_not_written_over(option: str, alphabet: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.json"
    prompt.write_text("a prompt")
    done = run("generate", alphabet, "--raw", "-f", prompt, "-n", "2", option, prompt)
    assert (done.returncode, prompt.read_text()) == (1, "a prompt")
    assert "left as it is" in done.stderr


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_trace_is_written_anew(name: str, alphabet: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = run("generate", alphabet, *SHORT, "--trace", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert len(read_trace(tmp_path / name).rows)


def test_a_conversation_is_not_saved_into_a_pipe(alphabet: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    commands = f"/save {tmp_path / 'pipe'}\n/stats\n"
    done = run("chat", alphabet, "-q", stdin=commands.encode())
    assert "is no conversation" in done.stderr


@full
def test_a_text_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders_module, "_MOST_TEXT_BYTES", 1 << 16)
    with pytest.raises(OSError, match="expected a text"):
        folders_module.read_text(Path("/dev/zero"))


@full
def test_an_answer_does_not_need_the_notes_disk(alphabet: Path) -> None:
    with Path("/dev/full").open("wb") as disk:
        done = run("generate", alphabet, *SHORT, stderr=disk)
    assert (done.returncode, bool(done.stdout)) == (0, True)
