"""``moestream generate`` as a process, on the model that recites the alphabet."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import (
    COMMAND,
    Argument,
    run,
    start,
    usage_error,
    wait_for_output,
)

from moestream.demo import demo_path
from moestream.profiles import read_profile
from moestream.traces.format import read_trace

# What ``auto`` takes, but for a checkout in which the native code was never built.
BACKEND = "cpu" if find_spec("moestream._native") else "reference"
USE_BACKEND = ["--backend", BACKEND]
ENDLESS = [*USE_BACKEND, "--raw", "-p", "0", "-n", "-1", "-c", "1000000"]


def generate_json(*arguments: Argument, **options: Any) -> dict[str, Any]:
    done = run("generate", *arguments, *USE_BACKEND, "--json", **options)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_text_is_on_stdout_and_the_rest_on_stderr(alphabet: Path) -> None:
    done = run("generate", alphabet, "-p", "hello", "-s", "7", *USE_BACKEND)
    assert done.returncode == 0
    assert done.stdout == f"{ALPHABET}\n"
    choices, timings = done.stderr.splitlines()
    assert choices == "alphabet: all of it in memory; context 8192, seed 7"
    assert re.fullmatch(
        r"prompt \d+ tokens, [\d.]+ tok/s; generated 28 tokens, [\d.]+ tok/s; "
        r"first token after [\d.]+ s, load [\d.]+ s; the model ended here",
        timings,
    )


def test_json_is_one_object_with_all_that_is_known(alphabet: Path) -> None:
    value = generate_json(alphabet, "-p", "hello", "--seed", "7")
    prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    timings = value.pop("timings")
    assert value.pop("budget_bytes") > 1 << 20
    assert value == {
        "text": ALPHABET,
        "reasoning": "",
        "advised_sampling": {},
        "prompt_tokens": len(prompt) - 2 * len("<|im_start|>") - len("<|im_end|>") + 3,
        "generated_tokens": len(ALPHABET.encode()),
        "stop_reason": "end",
        "model": str(alphabet),
        "backend": BACKEND,
        "seed": 7,
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "saved_profile": None,
        "residency": None,
        "work_per_token": None,
        "rows_per_token": None,
        "draft": {"kind": "none", "drafted_tokens": 0, "accepted_tokens": 0},
    }
    assert timings.keys() == {"load_s", "ttft_s", "prompt_tps", "generation_tps"}
    assert all(timing > 0 for timing in timings.values())


@pytest.mark.skipif(BACKEND != "cpu", reason="guesses need the native kernels")
def test_guesses_from_the_prompt_change_no_text(alphabet: Path) -> None:
    options = ("-p", f"{ALPHABET}; again: ", "--temp", "0", "-n", "20")
    plain = generate_json(alphabet, *options)
    guessed = generate_json(alphabet, *options, "--draft", "ngram")
    assert guessed["text"] == plain["text"]
    draft = guessed["draft"]
    assert draft["kind"] == "ngram"
    assert 5 < draft["accepted_tokens"] <= draft["drafted_tokens"]
    told = run("generate", alphabet, *options, *USE_BACKEND, "--draft", "ngram", "-v").stderr
    right, made = draft["accepted_tokens"], draft["drafted_tokens"]
    assert f"{right} of {made} guessed tokens were right; {19 - right} passes gave 19" in told


@pytest.mark.parametrize(
    ("flags", "types", "told"),
    [
        (["-ctk", "q8_0", "-ctv", "q8_0"], ("q8_0", "q8_0"), "context 99 in q8_0, seed"),
        (["--cache-type-k", "q8_0"], ("q8_0", "f16"), "99 with keys in q8_0 and values in f16,"),
        (["-ctv", "f32"], ("f16", "f32"), "99 with keys in f16 and values in f32,"),
    ],
)
def test_types_of_the_cache(
    tmp_path: Path, flags: list[str], types: tuple[str, str], told: str
) -> None:
    model = write_alphabet_model(tmp_path / "blocks.gguf", head_dim=32)
    arguments = ("generate", model, "-p", "hello", "-c", "99", *flags, *USE_BACKEND)
    done = run(*arguments, "--json", "--strategy", "decay")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["text"], value["cache_type_k"], value["cache_type_v"]) == (ALPHABET, *types)
    sizes = {"f16": 64, "f32": 128, "q8_0": 34}  # of a head's 32 values
    assert value["residency"]["plan"]["kv_bytes"] == 256 * sum(sizes[kind] for kind in types)
    assert told in done.stderr.splitlines()[0]


def test_a_type_of_cache_that_does_not_fit_the_model(alphabet: Path) -> None:
    done = run("generate", alphabet, "-p", "hello", "-ctv", "q8_0", *USE_BACKEND)
    assert (done.returncode, done.stdout) == (1, "")
    assert "heads of 132 values do not divide into q8_0's blocks of 32" in done.stderr
    assert "as f16 (--cache-type-k, --cache-type-v)" in done.stderr
    done = run("generate", alphabet, "-p", "hello", "-ctk", "q5_0")
    assert done.returncode == 2
    assert "'q5_0', expected one of f16, f32, q8_0, q4_0" in done.stderr


def test_the_demo_is_the_default(alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    demo = tmp_path / "models" / demo_path().name
    demo.symlink_to(alphabet)
    value = generate_json("-p", "hello", env={"MOESTREAM_CACHE": str(tmp_path)})
    assert (value["text"], value["model"]) == (ALPHABET, "demo")


@pytest.mark.parametrize("count", ["0", "1"])
def test_no_speed_is_told_of_nothing(count: str, alphabet: Path) -> None:
    told = run("generate", alphabet, "-p", "hello", "-n", count).stderr
    assert f"generated {count} tokens; " in told
    assert ("first token after" in told) == (count == "1")
    assert ", 0.0 tok/s" not in told


def test_quiet_leaves_the_text_alone(alphabet: Path) -> None:
    done = run("generate", alphabet, "-p", "hello", "-q", *USE_BACKEND)
    assert (done.stdout, done.stderr) == (f"{ALPHABET}\n", "")


@pytest.mark.parametrize("how", ["-p", "-f", "-f -", "piped"])
def test_prompt_comes_from_anywhere(how: str, alphabet: Path, tmp_path: Path) -> None:
    prompt = "perché no?\n\n"
    file = tmp_path / "prompt.txt"
    file.write_text(prompt + "\n", encoding="utf-8-sig")
    arguments: dict[str, list[Argument]] = {
        "-p": ["-p", prompt],
        "-f": ["-f", file],
        "-f -": ["-f", "-"],
        "piped": [],
    }
    stdin = None if how in ("-p", "-f") else file.read_bytes()
    value = generate_json(alphabet, *arguments[how], "--raw", "-n", "0", stdin=stdin)
    assert value["prompt_tokens"] == len(prompt.encode())


def test_raw_continues_the_text(alphabet: Path) -> None:
    value = generate_json(alphabet, "--raw", "-p", "ab")
    assert value["text"] == ALPHABET[2:]
    assert value["prompt_tokens"] == 2


def test_a_text_that_ends_its_line_gets_no_other_end(alphabet: Path) -> None:
    done = run("generate", alphabet, "--raw", "-p", "#", "-n", "1", "-q", *USE_BACKEND)
    assert done.stdout == "\n"


def test_system_prompt_goes_through_the_template(alphabet: Path) -> None:
    plain = generate_json(alphabet, "-p", "hello", "-n", "0")
    system = generate_json(alphabet, "-p", "hello", "-sys", "Be brief.", "-n", "0")
    extra = len("system\nBe brief.\n") + 2  # and the tokens around it
    assert system["prompt_tokens"] == plain["prompt_tokens"] + extra


def test_chat_template_by_file_and_by_name(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0].content }}3", encoding="utf-8")
    by_file = generate_json(alphabet, "-p", "hello", "--chat-template", template, "-n", "2")
    assert (by_file["text"], by_file["prompt_tokens"]) == ("45", 6)
    by_name = generate_json(alphabet, "-p", "hello", "--chat-template", "chatml", "-n", "2")
    assert by_name["text"] == "ab"


def test_a_template_that_writes_nothing_is_one_clear_line(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{# nothing #}", encoding="utf-8")
    done = run("generate", alphabet, "-p", "hello", "--chat-template", template, "-q", *USE_BACKEND)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*template\.jinja.* no text.*\n", done.stderr)


def test_what_is_piped_in_stands_before_the_prompt(alphabet: Path) -> None:
    def tokens(*arguments: str, stdin: bytes) -> int:
        value = generate_json(alphabet, "--raw", "-n", "1", *arguments, stdin=stdin)
        count = value["prompt_tokens"]
        assert isinstance(count, int)
        return count

    assert tokens("-p", "0", stdin=b"") == tokens("-p", "0", stdin=b"\n") == 1
    assert tokens("-p", "0", stdin=b"abc\n") == len("abc\n\n0")
    assert tokens(stdin=b"abc\n") == 3
    wrong = run("generate", alphabet, "-p", "0", stdin=b"caf\xe9", env={})
    assert wrong.returncode == 2
    assert "standard input is not UTF-8 text" in wrong.stderr


def test_unknown_chat_template_is_one_clear_line(alphabet: Path) -> None:
    done = run("generate", alphabet, "-p", "hello", "--chat-template", "nonesuch", *USE_BACKEND)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*'?nonesuch'?.*chatml.*\n", done.stderr)


@pytest.mark.parametrize(
    ("options", "text", "stop_reason", "generated_tokens"),
    [
        (["-n", "3"], "abc", "length", 3),
        (["--n-predict", "0"], "", "length", 0),
        (["-n", "-1"], ALPHABET, "end", 28),
        (["-n", "-2"], ALPHABET, "end", 28),
        (["--stop", "def"], "abc", "stop", 6),
        (["--stop", "xyzzy", "-r", "ghi", "--reverse-prompt", "f"], "abcde", "stop", 6),
        (["--stop", "zè!"], ALPHABET, "end", 28),
        (["-n", "27"], ALPHABET[:-1] + "\ufffd", "length", 27),
        (["-c", "40"], "abc", "context", None),
    ],
)
def test_generation_ends_where_it_is_told_to(
    options: list[str], text: str, stop_reason: str, generated_tokens: int | None, alphabet: Path
) -> None:
    value = generate_json(alphabet, "-p", "hello", *options)
    assert value["stop_reason"] == stop_reason
    if generated_tokens is None:  # the prompt and these fill the context, and one more
        assert value["prompt_tokens"] + value["generated_tokens"] == 40 + 1
        assert ALPHABET.startswith(value["text"])
    else:
        assert (value["text"], value["generated_tokens"]) == (text, generated_tokens)


def test_a_seed_repeats_a_run(alphabet: Path) -> None:
    wild = ["-p", "a", "--raw", "-n", "20", "--temp", "30", "--top-k", "0", "--top-p", "1"]
    wild += ["--min-p", "0"]
    first = generate_json(alphabet, *wild)
    again = generate_json(alphabet, *wild, "--seed", str(first["seed"]))
    other = generate_json(alphabet, *wild, "--seed", str((first["seed"] + 1) % 2**32))
    assert first["text"] == again["text"] != other["text"]
    assert 0 <= first["seed"] < 2**32


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-p", "a", "-f", __file__], "--prompt and --file exclude each other"),
        (["-p", ""], "the prompt is empty"),
        (["-p", " \n"], "the prompt is empty"),
        ([], "the prompt is empty"),
        (["-f", "/no/such/file"], "'/no/such/file' does not exist"),
        (["-f", os.sep], "is a directory"),
        (["-p", b"caf\xe9"], "the prompt is not UTF-8 text"),
        (["-p", "a", "-sys", b"caf\xe9"], "the system prompt is not UTF-8 text"),
        (["-p", "a", "--stop", b"caf\xe9"], "--stop is not UTF-8 text"),
        (["-p", "a", "--stop", ""], "--stop is empty"),
        (["-p", "a", "--raw", "-sys", "b"], "--raw uses no chat template"),
        (["-p", "a", "--raw", "--chat-template", "chatml"], "--raw uses no chat template"),
        (["-p", "a", "--temp", "-0.1"], "-0.1, expected a number of 0 or more"),
        (["-p", "a", "--temp", "nan"], "nan, expected a number of 0 or more"),
        (["-p", "a", "--temp", "warm"], "'warm', expected a number of 0 or more."),
        (["-p", "a", "-n", "few"], "'few', expected a whole number of 0 or more."),
        (["-p", "a", "--presence-penalty", "inf"], "inf, expected a finite number"),
        (["-p", "a", "--top-p", "1.1"], "1.1, expected a number of 0 to 1"),
        (["-p", "a", "--top-k", "-2"], "-2, expected a whole number of 0 or more"),
        (["-p", "a", "--repeat-penalty", "0"], "0.0, expected a number above 0"),
        (["-p", "a", "-n", "-3"], "-3, expected a whole number of 0 or more"),
        (["-p", "a", "-c", "-1"], "-1, expected a whole number of 0 or more"),
        (["-p", "a", "-t", "-2"], "-2, expected 0, or a whole number of 1 to 1024"),
    ],
)
def test_values_that_make_no_sense_are_usage_errors(
    arguments: list[Argument], complaint: str
) -> None:
    assert complaint in usage_error("generate", *arguments)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--backend", "abacus"], "'abacus', expected one of auto, cpu, mlx, reference"),
        (["--backend", "reference", "-t", "2"], "set OMP_NUM_THREADS instead of --threads"),
    ],
)
def test_a_wrong_backend_is_refused_before_the_demo_is_built(
    options: list[str], complaint: str, tmp_path: Path
) -> None:
    done = run("generate", "demo", "-p", "x", *options, env={"MOESTREAM_CACHE": str(tmp_path)})
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_utf8_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes("caffè".encode("latin-1"))
    done = run("generate", "-f", file)
    assert done.returncode == 2
    assert "latin.txt is not UTF-8 text: byte 4 is 0xe8" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["-p", "hello", "-c", "10", *USE_BACKEND],
            r"The prompt has \d+ tokens and the context holds 10",
        ),
    ],
)
def test_what_the_model_cannot_do_is_one_clear_line(
    options: list[str], complaint: str, alphabet: Path
) -> None:
    done = run("generate", alphabet, *options, "-q")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error: .*{complaint}.*\n", done.stderr)


def test_a_model_without_a_template_says_what_to_pass(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "model.gguf", chat=False)
    done = run("generate", path, "-p", "hello", "-q", *USE_BACKEND)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*--chat-template.*\n", done.stderr)


def test_a_context_beyond_the_models_own_is_warned_of(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "model.gguf", context=50)
    done = run("generate", path, "-p", "hello", "-c", "60", *USE_BACKEND)
    assert done.returncode == 0
    warning = "warning: a context of 60 is more than the model's own 50"
    assert done.stderr.splitlines()[0] == warning


def test_a_terminal_is_not_waited_for() -> None:
    parent, child = pty.openpty()
    process = start("generate", stdin=child)
    os.close(child)
    _, err = process.communicate(timeout=60)
    os.close(parent)
    assert process.returncode == 2
    assert b"there is no prompt; give one with -p TEXT, -f FILE" in err


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or BACKEND != "cpu",
    reason="counts threads as Linux lists them, and the reference backend has none",
)
def test_threads_are_as_many_as_asked_for(alphabet: Path) -> None:
    def count(threads: str) -> int:
        process = start("generate", alphabet, *ENDLESS, "-t", threads)
        wait_for_output(process.stdout)
        tasks = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
        interrupt(process)
        return tasks

    assert count("2") == count("1") + 1


def on_terminal(*arguments: Argument) -> str:
    """What a run writes to a terminal that is both of its streams."""
    parent, child = pty.openpty()
    command = [*COMMAND, "generate", *map(str, arguments), *USE_BACKEND]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=child, stderr=child, env=environment
    ):
        os.close(child)
        seen = b""
        try:
            while new := os.read(parent, 1 << 16):
                seen += new
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(parent)
    return seen.decode()


@pytest.mark.slow
def test_a_long_prompt_shows_how_far_it_is(alphabet: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("0123456789" * 200, encoding="utf-8")
    arguments = (alphabet, "--raw", "-f", prompt, "-n", "2", "--temp", "0")
    seen = on_terminal(*arguments)
    assert "reading the prompt" in seen
    assert "/2000" in seen
    assert "tok/s" in seen
    assert "reading the prompt" not in on_terminal(*arguments, "-q")
    piped = run("generate", *arguments, "--json", *USE_BACKEND)
    assert "reading" not in piped.stderr
    value = json.loads(piped.stdout)
    assert (value["text"], value["prompt_tokens"]) == ("01", 2000)
    assert value["timings"]["ttft_s"] > 2000 / value["timings"]["prompt_tps"] * 0.9


def test_a_models_text_does_not_steer_the_terminal(tmp_path: Path) -> None:
    model = write_alphabet_model(tmp_path / "m.gguf", follows={"0": "\x1b", "\x1b": "c"})
    arguments = (model, "--raw", "-p", "0", "-n", "2", "--temp", "0", "-q")
    assert on_terminal(*arguments) == "\ufffdc\r\n"
    assert run("generate", *arguments, *USE_BACKEND).stdout == "\x1bc\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_a_run_with_all_that_is_recorded(
    number: int, alphabet: Path, tmp_path: Path
) -> None:
    trace, profile = tmp_path / "t.csv.gz", tmp_path / "p.json"
    process = start(
        "generate", alphabet, *ENDLESS, "--trace", trace, "--save-profile", profile, "--json"
    )
    wait_for_output(process.stderr)
    time.sleep(0.5)
    for _ in range(3):
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert json.loads(out)["stop_reason"] == "interrupted"
    tokens = read_profile(profile, "p").tokens
    assert tokens == len(read_trace(trace).rows) // 2  # two experts a token
    assert tokens >= 1


def test_a_full_pipe_does_not_keep_a_signal_out(alphabet: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        os.set_blocking(writer, False)
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        process = start("generate", alphabet, *ENDLESS, stdout=writer)
        os.close(writer)
        wait_for_output(process.stderr)
        time.sleep(0.5)  # nobody reads
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert len(pipe.read()) <= filled + (1 << 16)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_numbers_that_are_not_finite_end_it_with_what_was_written(tmp_path: Path) -> None:
    model = write_alphabet_model(tmp_path / "broken.gguf", broken_at="m")
    for temperature in ("0", "0.8"):
        done = run("generate", model, "-p", "hello", "--temp", temperature, "-q", *USE_BACKEND)
        assert (done.returncode, done.stdout) == (1, "abcdefghijklm\n")
        assert done.stderr.startswith("error: The model's numbers are not finite: ")


def interrupt(process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    return out.decode(), err.decode()


def test_ctrl_c_keeps_what_was_written(alphabet: Path) -> None:
    process = start("generate", alphabet, *ENDLESS)
    first = wait_for_output(process.stdout).decode()
    out, err = interrupt(process)
    text = (first + out).removesuffix("\n")
    assert "1234567890" * (len(text) // 10 + 1) == text + "1234567890"[len(text) % 10 :]
    assert out.endswith("\n")
    assert err.splitlines()[-1].endswith("; interrupted")


def test_ctrl_c_still_gives_one_json_object(alphabet: Path) -> None:
    process = start("generate", alphabet, *ENDLESS, "--json")
    wait_for_output(process.stderr)  # the choices are told as generation begins
    out, _ = interrupt(process)
    value = json.loads(out)
    assert value["stop_reason"] == "interrupted"
    assert value["model"] == str(alphabet)
    assert ("1234567890" * 10_000).startswith(value["text"])


def test_a_reader_that_leaves_is_no_error(alphabet: Path) -> None:
    process = start("generate", alphabet, *ENDLESS)
    wait_for_output(process.stdout)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert err.decode() == err.decode().splitlines()[0] + "\n"  # the choices made, no more
    process.stderr.close()
