"""``moestream profile``, and what a run does with one, as processes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alphabet_model import ALPHABET
from command_line import Argument, run, start, wait_for_output

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.profiles import read_profile

SHARED = Path(__file__).parent / "data" / "traces"
GOLDEN = Path(__file__).parent / "data" / "golden"
ASK = ("-p", "hello", "-s", "7")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles with names lie; not made yet."""
    monkeypatch.setenv("MOESTREAM_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "profiles"


def tell(*arguments: Argument) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def save(name: str, model: Path, *arguments: Argument) -> dict[str, Any]:
    return tell("profile", "save", name, model, *(arguments or ("-p", "hello", "-n", "0")))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_save_counts_a_workload(alphabet: Path, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abc")
    value = save("x", alphabet, "-p", "hello", "-f", text, "-n", "5", "-s", "7")
    path = folder / "x.json"
    assert value["path"] == str(path)
    assert value["options"] == {
        "prompts": 2,
        "files": ["text.txt"],
        "raw": False,
        "predict": 5,
        "temperature": 0.8,
        "seed": 7,
    }
    saved = read_profile(path, "x")
    # Both prompts in ChatML; of five tokens made, the last is not run.
    prompts = sum(len(f"<user\n{text}>\n<assistant\n") for text in ("hello", "abc"))
    assert saved.tokens == value["tokens"] == prompts + 2 * 4
    assert saved.uses.tolist() == [[saved.tokens, saved.tokens, 0, 0]]
    assert list(folder.iterdir()) == [path]


def test_save_cuts_a_raw_text_that_is_longer_than_the_context(alphabet: Path) -> None:
    text = "0123456789" * 10
    assert save("x", alphabet, "--raw", "-p", text, "-n", "0", "-c", "32")["tokens"] == 100
    done = run("profile", "save", "x", alphabet, "-p", text, "-c", "32")
    assert done.returncode == 1
    assert "and the context holds 32" in done.stderr


def test_save_reads_standard_input(alphabet: Path) -> None:
    done = run("profile", "save", "x", alphabet, "-f", "-", "--raw", "-n", "0", stdin=b"abcd")
    assert done.returncode == 0, done.stderr
    assert "tokens   4, fading by half in 512" in done.stdout


def test_a_trace_and_its_run_come_to_the_same_profile(alphabet: Path, tmp_path: Path) -> None:
    trace = tmp_path / "run.route.csv.gz"
    value = tell("generate", alphabet, *ASK, "--trace", trace, "--save-profile", "run")
    assert value["saved_profile"]["tokens"] == value["prompt_tokens"] + value["generated_tokens"]
    run_profile = read_profile(Path(value["saved_profile"]["path"]), "run")
    value = save("traced", alphabet, "--trace", trace)
    traced = read_profile(Path(value["path"]), "traced")
    np.testing.assert_array_equal(run_profile.uses, traced.uses)
    np.testing.assert_allclose(run_profile.decayed, traced.decayed, rtol=1e-4)
    assert run_profile.fingerprint == traced.fingerprint
    assert value["options"] == {"trace": trace.name}


def test_a_public_trace_is_profiled_without_its_model(folder: Path) -> None:
    value = tell("profile", "save", "qwen", "--trace", SHARED / "qwen3-30b-a3b.route.csv.gz")
    assert (value["num_layers"], value["num_experts"], value["tensors_sha256"]) == (48, 128, None)
    assert (folder / "qwen.json").stat().st_size < 150_000
    shown = tell("profile", "show", "qwen", "--hottest", "2")
    assert len(shown["layers"]) == 48
    assert all(len(layer["hottest"]) == 2 for layer in shown["layers"])
    assert shown["coverage"][0] == 0
    assert shown["coverage"][-1] == pytest.approx(1)


def test_a_trace_of_another_model_is_refused(alphabet: Path, folder: Path) -> None:
    trace = SHARED / "qwen3-30b-a3b.route.csv.gz"
    done = run("profile", "save", "x", alphabet, "--trace", trace)
    assert done.returncode == 1
    assert "architecture is 'qwen3moe' there and 'llama' here" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x"], "give a workload, by -p and -f, or --trace"),
        (["x", "-p", "a", "--trace", __file__], "give a workload, by -p and -f, or --trace"),
        (["x", "--trace", __file__, "-n", "5"], "--trace runs nothing, so --predict does nothing"),
        (["x", "--trace", __file__, "--temp", "0"], "so --temperature does nothing"),
        (["x", "-p", " "], "a prompt is empty"),
        (["a/b", "-p", "a"], "'a/b' is no name of a profile"),
        (["../b", "-p", "a"], "'../b' is no name"),
        (["", "-p", "a"], "'' is no name"),
        ([".hidden", "-p", "a"], "'.hidden' is no name"),
        (["a b", "-p", "a"], "'a b' is no name"),
        (["a:2", "-p", "a"], "'a:2' is no name"),
        (["x" * 300, "-p", "a"], "is no name of a profile"),
        (["x", "-p", "a", "--half-life", "nan"], "nan, expected a number of 1 to"),
    ],
)
def test_what_save_cannot_do_is_a_usage_error(arguments: list[str], complaint: str) -> None:
    done = run("profile", "save", *arguments)
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_a_path_that_ends_in_json_is_a_profile_too(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    save(str(path), alphabet)
    assert tell("profile", "show", path)["name"] == "mine"
    value = tell("generate", alphabet, *ASK, "--profile", f"{path}:2", "--budget", "100%")
    assert value["residency"]["choices"]["profile"] == "mine"
    done = run("profile", "rm", path)
    assert done.returncode == 1
    assert "delete it yourself" in done.stderr
    assert path.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_workload_that_is_broken_off_is_saved_as_far_as_it_was(
    signum: int, alphabet: Path, folder: Path
) -> None:
    words = ("x", alphabet, "--raw", "-c", "100000", "-n", "90000")
    process = start("profile", "save", *words, "-p", "0", "--temp", "0")
    wait_for_output(process.stderr)
    time.sleep(1.5)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    tokens = read_profile(folder / "x.json", "x").tokens
    assert tokens > 0
    assert f"saved what {tokens} tokens used by now to ".encode() in err


def test_a_dense_model_has_no_profile() -> None:
    done = run("profile", "save", "x", GOLDEN / "llama.gguf", "--raw", "-p", "a", "-n", "0")
    assert done.returncode == 1
    assert "has no experts" in done.stderr


@pytest.mark.parametrize("io", ["madvise", "pread", "direct"])
def test_a_run_begins_with_its_profile_in_memory(io: str, alphabet: Path) -> None:
    save("x", alphabet)
    flags = ("--budget", "100%", "--io", io, "--profile", "x")
    value = tell("generate", alphabet, *ASK, *flags)
    residency = value["residency"]
    assert value["text"] == ALPHABET
    assert residency["choices"]["profile"] == "x"
    assert residency["warming"]["experts"] == 2
    assert residency["warming"]["bytes"] == 2 * 4 * 3 * 32 * 264
    assert residency["prefill"]["misses"] == residency["decode"]["misses"] == 0
    without = tell("generate", alphabet, *ASK, *flags[:-2])["residency"]
    assert without["choices"]["profile"] is None
    assert without["warming"]["experts"] == 0
    assert io == "madvise" or without["prefill"]["misses"] == 2


def test_what_was_read_is_told(alphabet: Path) -> None:
    save("x", alphabet)
    save("y", alphabet)
    flags = ("--budget", "100%", "--io", "pread", "--profile", "x:2,y")
    done = run("generate", alphabet, *ASK, *flags, "-v", "--save-profile", "z")
    assert done.stdout == f"{ALPHABET}\n"
    told = " ".join(done.stderr.split())
    assert "reading the profile's experts" in told
    assert "prefetch 1 layer ahead, profile x:2,y:1" in told
    assert (
        "from the profile 2 experts, 198 KiB, before the first token; 198 KiB of it read in" in told
    )
    assert f"52 tokens profiled in {os.environ['MOESTREAM_DATA']}/profiles/z.json" in told
    assert run("generate", alphabet, *ASK, *flags, "-q").stderr == ""


def test_a_run_that_is_interrupted_saves_its_profile(alphabet: Path, folder: Path) -> None:
    process = start(
        "generate",
        alphabet,
        "--raw",
        "-p",
        "0",
        "-c",
        "100000",
        "-n",
        "90000",
        "--save-profile",
        "x",
    )
    wait_for_output(process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert read_profile(folder / "x.json", "x").tokens > 0
    assert list(folder.iterdir()) == [folder / "x.json"]


@pytest.mark.parametrize(
    ("flags", "status", "complaint"),
    [
        ("--profile a/b", 2, "'a/b' is no name of a profile"),
        ("--profile x:0", 2, "'0' is no weight of a profile"),
        ("--profile x:nan", 2, "'nan' is no weight"),
        ("--profile x:", 2, "'' is no weight"),
        ("--profile x,", 2, "'' is no name"),
        ("--save-profile a/b", 2, "'a/b' is no name"),
        (
            "--profile x --strategy none",
            2,
            "--strategy none maps the file and streams nothing, so --prof",
        ),
        ("--profile x --budget none", 2, "so --profile cannot be given with it"),
        (
            "--profile none-such",
            1,
            "there are none; make it with: moestream profile save none-such",
        ),
        ("--profile ./none-such.json", 1, "none-such.json: no such profile"),
    ],
)
def test_what_is_no_profile_is_one_clear_line(
    flags: str, status: int, complaint: str, alphabet: Path
) -> None:
    done = run("generate", alphabet, *ASK, *flags.split())
    assert done.returncode == status
    assert complaint in " ".join(done.stderr.split())
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is not JSON"),
        (lambda path: change(path, version=9), "version 9"),
        (lambda path: path.write_text("{}"), "not a profile"),
    ],
)
def test_a_damaged_profile_is_one_clear_line(
    damage: Any, complaint: str, alphabet: Path, folder: Path
) -> None:
    save("x", alphabet)
    damage(folder / "x.json")
    for command in (
        ("generate", alphabet, *ASK, "--profile", "x"),
        ("profile", "show", "x"),
        ("profile", "load", "x", alphabet),
        ("profile", "merge", "y", "x"),
    ):
        done = run(*command)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {folder / 'x.json'}: ")
        assert complaint in done.stderr
        assert len(done.stderr.splitlines()) == 1
    listed = run("profile", "list")
    assert listed.returncode == 0
    assert complaint in listed.stderr
    (entry,) = tell("profile", "list")["profiles"]
    assert complaint in entry["error"]
    assert run("profile", "rm", "x").returncode == 0


def test_a_profile_of_another_model_is_refused(alphabet: Path) -> None:
    tell("profile", "save", "x", "--trace", SHARED / "gemma-4-26b-a4b.route.csv.gz")
    for command in (
        ("generate", alphabet, *ASK, "--profile", "x"),
        ("profile", "load", "x", alphabet),
    ):
        done = run(*command)
        assert done.returncode == 1
        assert "not of alphabet.gguf: architecture is" in done.stderr


def test_a_failing_save_leaves_the_old_profile(alphabet: Path, folder: Path) -> None:
    save("x", alphabet)
    old = (folder / "x.json").read_bytes()
    done = run("profile", "save", "x", alphabet, "-p", "a" * 200, "-c", "100")
    assert done.returncode == 1
    assert (folder / "x.json").read_bytes() == old
    blocked = folder / "dir.json"
    blocked.mkdir()
    done = run("profile", "merge", "dir", "x")
    assert done.returncode == 1
    assert f"error: {blocked}: cannot be written: " in done.stderr
    assert sorted(folder.iterdir()) == [blocked, folder / "x.json"]


def test_list_names_what_there_is(alphabet: Path, folder: Path) -> None:
    done = run("profile", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"there are no profiles in {folder}" in done.stderr
    save("perché", alphabet)
    save("b.2", alphabet)
    (folder / "other.txt").write_text("")
    heading, columns, *rows = run("profile", "list").stdout.splitlines()
    assert heading == str(folder)
    assert columns.split() == ["name", "tokens", "model", "saved"]
    assert [row.split()[:3] for row in rows] == [
        ["b.2", "24", "alphabet.gguf"],
        ["perché", "24", "alphabet.gguf"],
    ]
    value = tell("profile", "list")
    assert value["folder"] == str(folder)
    assert [(p["name"], p["tokens"], p["error"]) for p in value["profiles"]] == [
        ("b.2", 24, None),
        ("perché", 24, None),
    ]


def test_show_says_what_was_used(alphabet: Path) -> None:
    save("x", alphabet)
    lines = run("profile", "show", "x").stdout.splitlines()
    assert lines[0] == "x"
    assert "  experts  1 layers of 4 experts, 2 a token" in lines
    assert "  0         1.00     50.0%  0 (50.0%), 1 (50.0%)" in lines
    assert lines[-2:] == ["experts by layer, up to 50% of a layer's uses", "  0  @@  "]
    (layer,) = tell("profile", "show", "x")["layers"]
    assert (layer["layer"], layer["entropy"], layer["coverage"]) == (0, 1, 0.5)
    assert layer["uses"] == [24, 24, 0, 0]


def test_show_draws_a_figure(alphabet: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save("x", alphabet)
    tell("profile", "show", "x", "--png", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_name_that_is_not_there_is_corrected(alphabet: Path, folder: Path) -> None:
    save("italian", alphabet)
    for command in (("show", "italain"), ("rm", "italain")):
        done = run("profile", *command)
        assert done.returncode == 1
        assert f"no profile is called 'italain' in {folder}; did you mean italian?" in done.stderr
    done = run("profile", "shwo")
    assert done.returncode == 2
    assert "did you mean show?" in done.stderr
    assert "see moestream profile --help" in run("profile", "xyzzy").stderr


def test_diff_and_merge(alphabet: Path, folder: Path) -> None:
    save("x", alphabet)
    save("y", alphabet)
    (layer,) = json.loads((folder / "y.json").read_text())["layers"]
    change(folder / "y.json", layers=[layer | {"uses": [0, 9, 9, 0], "decayed": [0, 9, 9, 0]}])
    value = tell("profile", "diff", "x", "y", "--budget", "50%,100%")
    assert value["similarity"] == value["by_layer"]["0"] == 0.5
    half, whole = value["budgets"]
    assert (half["budget"], half["shared"]) == ("50%", pytest.approx(1 / 3))
    assert half["misses"] == [[0, 0.5], [0.5, 0]]
    assert whole["misses"] == [[0, 0.5], [0.5, 0]]  # what a profile never used is in no set
    table = run("profile", "diff", "x", "y", "--budget", "50%").stdout.splitlines()
    assert table[-1].split() == ["50%", "33.3%", "0.0%", "50.0%", "0.0%", "50.0%"]
    merged = tell("profile", "merge", "both", "x:3", "y")
    assert merged["options"] == {"merged": ["x:3", "y:1"]}
    shares = read_profile(folder / "both.json", "both").shares()
    np.testing.assert_allclose(shares, [[0.375, 0.5, 0.125, 0]], rtol=1e-5)
    tell("profile", "save", "q", "--trace", SHARED / "qwen3-30b-a3b.route.csv.gz")
    for command in (("diff", "x", "q"), ("merge", "z", "x", "q")):
        done = run("profile", *command)
        assert done.returncode == 1
        assert "profile q is not of the same model as x" in done.stderr
    assert not (folder / "z.json").exists()


def test_load_reads_into_the_page_cache(alphabet: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(alphabet.read_bytes())
    save("x", model)
    descriptor = os.open(model, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    value = tell("profile", "load", "x", model, "--budget", "100%")
    assert value["warming"]["experts"] == 2
    assert 0 <= value["warming"]["read_bytes"] <= value["warming"]["bytes"]
    assert value["plan"]["experts_bytes"] > value["warming"]["bytes"]
    done = run("profile", "load", "x", model)
    assert "in memory  2 experts, 198 KiB, 50% of all" in done.stdout
    assert "read now   0 bytes in" in done.stdout  # it is there since the last time
    assert run("profile", "load", "x", model, "--budget", "1M").returncode == 0
    assert run("profile", "load", "x", model, "--budget", "none").returncode == 2


def test_rm_deletes(alphabet: Path, folder: Path) -> None:
    save("x", alphabet)
    save("y", alphabet)
    assert tell("profile", "rm", "x", "y") == {
        "removed": [str(folder / "x.json"), str(folder / "y.json")]
    }
    assert not list(folder.iterdir())


def test_shells_can_complete_names(alphabet: Path) -> None:
    save("italian", alphabet)
    words = {"COMP_WORDS": "moestream profile show it", "COMP_CWORD": "3"}
    done = run(env=words | {"_MOESTREAM_COMPLETE": "bash_complete"})
    assert done.stdout.splitlines() == ["plain,italian"]
