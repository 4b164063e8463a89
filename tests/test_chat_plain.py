"""``moestream chat`` in plain lines, as a process."""

import json
import os
import pty
import re
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import Argument, run, start, usage_error, wait_for_output

from moestream.chat.conversation import Conversation, Turn
from moestream.cli.commands.chat.kept import Keeper, model_of
from moestream.profiles import read_profile
from moestream.traces.format import read_trace

BACKEND = "cpu" if find_spec("moestream._native") else "reference"
USE_BACKEND = ["--backend", BACKEND]


def chat(
    model: Path, lines: str | bytes, *arguments: Argument, **options: object
) -> tuple[int, str, str]:
    data = lines.encode() if isinstance(lines, str) else lines
    done = run("chat", model, *USE_BACKEND, *arguments, stdin=data, **options)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_each_line_is_a_turn_and_stdout_has_the_answers_alone(alphabet: Path) -> None:
    code, out, err = chat(alphabet, "hello\n\nagain")
    assert (code, out) == (0, f"{ALPHABET}\n{ALPHABET}\n")
    (choices,) = err.splitlines()
    assert choices.startswith("alphabet: all of it in memory; context 8192, seed ")
    assert chat(alphabet, "hello\n", "-q") == (0, f"{ALPHABET}\n", "")
    assert chat(alphabet, "", "-q") == (0, "", "")


def test_commands_work_on_the_conversation(alphabet: Path, tmp_path: Path) -> None:
    saved = tmp_path / "a talk.json"
    lines = f"""one
two
/undo
/save "{saved}"
/clear
/load {saved}
/set predict 3
three
/retry
/stats
/model
/quit
never said"""
    code, out, err = chat(alphabet, lines, "-sys", "Be brief.")
    assert (code, out) == (0, f"{ALPHABET}\n{ALPHABET}\nabc\nabc\n")
    told = err.splitlines()
    for words in (
        "took back: two",
        f"saved 1 turn to {saved}",
        "conversation cleared",
        f"loaded 1 turn from {saved}; the last: one",
        "predict is 3",
        "stopped at 3 tokens (/set predict changes that)",
        f"the model is {alphabet}: {alphabet}",
        "last answer",
    ):
        assert words in told, words
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert [m["content"] for m in messages] == ["Be brief.", "one", ALPHABET]


def test_the_system_prompt_can_be_seen_and_changed(alphabet: Path) -> None:
    code, _, err = chat(
        alphabet, "/system\n/system Be kind.\n/system\n/system none\n/system\n", "-v"
    )
    assert code == 0
    assert [line for line in err.splitlines() if "system prompt" in line] == [
        "no system prompt",
        "system prompt set",
        "system prompt: Be kind.",
        "no system prompt",
        "no system prompt",
    ]


def test_how_much_of_a_prompt_was_kept_is_told(alphabet: Path) -> None:
    code, _, err = chat(alphabet, "one\n/undo\nonly\n", "-v")
    assert code == 0
    first, second = (line for line in err.splitlines() if "tokens were kept" in line)
    assert re.fullmatch(
        r"0 of the prompt's \d+ tokens were kept, reading began at '.*one.*'", first
    )
    assert re.fullmatch(r"[1-9]\d* of the prompt's .* reading began at 'ly<.*'", second)


WRONG = (
    ("/hlep", "no command is called /hlep; did you mean /help?"),
    ("/xyzzy", "no command is called /xyzzy; /help lists them"),
    ("/undo", "nothing has been said yet"),
    ("/retry", "nothing has been said yet"),
    ("/drop", "nothing has been said yet"),
    ("/clear now", "/clear takes nothing after it, not 'now'"),
    ("/set temp", "/set temp needs a value"),
    ("/set tmp 1", "nothing that can be set is called 'tmp'; did you mean temp?"),
    ("/set temp hot", "temp is 'hot', expected a number of 0 or more"),
    ("/save", "/save needs the name of a file"),
    ("/load", "/load needs the name of a file"),
    ('/save "a', "No closing quotation"),
    ("/load /no/such/file", "/no/such/file: No such file or directory"),
    ("/load .", ".: Is a directory"),
    ("/save /no/such/file", "No such file or directory"),
    ("/model nonesuch", "no model is called 'nonesuch'"),
    ("/profile", "/profile: expected /profile save NAME"),
    ("/profile save", "/profile save: expected /profile save NAME"),
    ("/profile load x", "/profile load x: expected /profile save NAME"),
    ("/profile save a/b", "'a/b' is no name of a profile"),
    ("/profile save x", "nothing has been answered yet"),
)


def test_what_is_wrong_is_one_line_and_the_chat_goes_on(alphabet: Path) -> None:
    code, out, err = chat(alphabet, "\n".join([*(line for line, _ in WRONG), "hello\n"]), "-q")
    assert (code, out) == (1, f"{ALPHABET}\n")
    for told, (line, complaint) in zip(err.splitlines(), WRONG, strict=True):
        assert told.startswith("error: "), line
        assert complaint in told, line


def test_a_file_that_is_no_conversation_is_not_overwritten(alphabet: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("keep me", encoding="utf-8")
    code, _, err = chat(alphabet, f"/save {notes}\n/load {notes}\n", "-q")
    assert code == 1
    assert "exists and is no conversation" in err.splitlines()[0]
    assert "is not JSON" in err.splitlines()[1]
    assert notes.read_text(encoding="utf-8") == "keep me"


def test_a_full_context_says_what_can_be_done(alphabet: Path) -> None:
    lines = "one\ntwo\nthree\n/drop 1\nthree\n"
    code, out, err = chat(alphabet, lines, "-q", "-c", "120")
    assert (code, out) == (1, f"{ALPHABET}\n" * 3)
    (told,) = err.splitlines()
    assert "with this message the conversation takes 128 tokens, and the context holds 120" in told
    assert "/drop forgets the oldest turns" in told
    code, out, err = chat(alphabet, "one\ntwo\nthree\n", "-c", "120", "--context-shift")
    assert (code, out) == (0, f"{ALPHABET}\n" * 3)
    assert "dropped the 1 oldest turn to make room" in err
    for before in ("", "one\n"):
        code, out, err = chat(alphabet, before + "x" * 200, "-q", "-c", "120")
        assert (code, out) == (1, f"{ALPHABET}\n" if before else "")
        assert "The message has 219 tokens and the context holds 120. Shorten it, or" in err
        assert "start with -c 256 or more." in err
        assert "/drop" not in err


def test_reasoning_is_shown_aside_or_not_at_all(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "thinks.jinja"
    template.write_text("{{ messages[-1].content }}<think>{{ '\\n' }}", encoding="utf-8")
    thinks = ("--chat-template", template, "-q")
    assert chat(alphabet, "hello\n", *thinks) == (0, "", f"{ALPHABET}\n")
    assert chat(alphabet, "hello\n", *thinks, "--reasoning", "hide") == (0, "", "")
    assert chat(alphabet, "hello\n", *thinks, "--reasoning", "show") == (0, f"{ALPHABET}\n", "")


def test_another_model_goes_on_with_the_conversation(alphabet: Path, tmp_path: Path) -> None:
    other = write_alphabet_model(tmp_path / "other.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    lines = f"hello\n/model {broken}\nstill here\n/model {other}\nand here\n/stats\n"
    code, out, err = chat(alphabet, lines)
    assert (code, out) == (1, f"{ALPHABET}\n" * 3)
    assert f"the model is {other}; the conversation goes on" in err
    (prompt,) = [line for line in err.splitlines() if line.startswith("  prompt ")]
    assert " 0 of them kept from before" in prompt
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


def test_a_trace_is_of_all_turns_and_one_model(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.route.csv"
    code, _, err = chat(alphabet, f"hello\nagain\n/model {alphabet}\n", "--trace", path)
    assert code == 1
    assert "are of one model" in err
    assert set(read_trace(path).rows["turn"].tolist()) == {0, 1}


def test_what_the_chat_used_can_be_saved_at_any_time(alphabet: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_DATA": str(tmp_path)}
    lines = "hello\n/profile save first\nagain\n/profile save second\n"
    code, out, err = chat(alphabet, lines, "--save-profile", "all", env=env)
    assert (code, out) == (0, f"{ALPHABET}\n" * 2)
    names = ("first", "second", "all")
    first, second, whole = (
        read_profile(tmp_path / "profiles" / f"{name}.json", name) for name in names
    )
    assert f"saved what {first.tokens} tokens used to {tmp_path}/profiles/first.json" in err
    assert 0 < first.tokens < second.tokens == whole.tokens
    assert (second.uses == whole.uses).all()


def test_streaming_tells_of_itself(alphabet: Path) -> None:
    code, out, err = chat(alphabet, "hello\n/stats\n", "--budget", "1M", "--io", "pread")
    assert (code, out) == (0, f"{ALPHABET}\n")
    assert "of the experts in memory, the rest read from disk as needed" in err
    assert "of 56 experts asked for in decode" in err


def test_input_is_utf8_and_output_what_the_locale_has(alphabet: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    code, out, _ = chat(alphabet, "perché\n".encode(), "-q", env=ascii_only)
    assert (code, out) == (0, f"{ALPHABET[:-1]}?\n")
    code, out, _ = chat(alphabet, b"\x00\n", "-q")
    assert (code, out) == (0, f"{ALPHABET}\n")


def test_a_pipe_that_is_not_utf8_is_refused(alphabet: Path) -> None:
    code, out, err = chat(alphabet, b"hello\ncaf\xe9\nagain\n", "-q")
    assert (code, out) == (1, f"{ALPHABET}\n")
    assert err == (
        "error: line 2 of standard input is not UTF-8 text: byte 3 is 0xe9; convert it, and start "
        "again\n"
    )


def test_statistics_have_no_speed_of_nothing(alphabet: Path) -> None:
    _, _, err = chat(alphabet, "/stats\nhello\n/stats\n", "-n", "1")
    assert ", 0.0 tok/s" not in err


def test_two_chats_do_not_overwrite_one_conversation(alphabet: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_STATE": str(tmp_path)}
    assert chat(alphabet, "hello\n", "-q", env=env)[0] == 0
    (kept,) = (tmp_path / "chats").glob("*.json")
    with Keeper(kept) as first:
        before = kept.read_bytes()
        code, _, err = chat(alphabet, "again\n", "--continue", env=env)
        assert code == 0
        assert "another chat goes on with it, so this one is saved as one of its own" in err
        assert kept.read_bytes() == before
        (other,) = set((tmp_path / "chats").glob("*.json")) - {kept}
        assert len(Conversation.load(other).turns) == 2
        assert not first.held
    assert sorted((tmp_path / "chats").iterdir()) == sorted([kept, other])
    with Keeper(kept) as next_one:
        assert not next_one.held


def test_a_conversation_that_a_template_refuses_does_not_end_the_chat(
    alphabet: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "talk.json"
    Conversation("Be brief.", [Turn("Hi", "Hello.")]).save(saved, model="m")
    picky = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ messages[-1].content }}"
    )
    words = ("--load", saved, "--chat-template", picky, "-q", "-n", "1")
    code, out, err = chat(alphabet, "hello\n/system none\nhello\n", *words)
    assert err.count("error: ") == 1
    assert "no system" in err
    assert (code, len(out.splitlines())) == (1, 1)


def test_a_conversation_that_goes_on_counts_from_the_start(alphabet: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_STATE": str(tmp_path)}
    assert chat(alphabet, "hello\n", "-q", env=env)[0] == 0
    _, _, err = chat(alphabet, "/stats\n", "--continue", env=env)
    assert re.search(r"context +[1-9]\d* of ", err)


def test_a_model_without_a_template_says_what_to_pass(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "model.gguf", chat=False)
    code, out, err = chat(path, "hello\n", "-q")
    assert (code, out) == (1, "")
    assert "pass --chat-template" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-sys", b"caf\xe9"], "the system prompt is not UTF-8 text"),
        (["--stop", ""], "--stop is empty"),
        (["--reasoning", "loud"], "'loud', expected one of"),
        (["-q", "-v"], "--quiet and --verbose exclude each other"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(
    arguments: list[Argument], complaint: str
) -> None:
    assert complaint in usage_error("chat", *arguments)


ENDLESS = "{{ messages[-1].content }}0"


def test_ctrl_c_ends_a_pipe_with_what_was_written(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "endless.jinja"
    template.write_text(ENDLESS, encoding="utf-8")
    process = start(
        "chat", alphabet, *USE_BACKEND, "--chat-template", template, "-c", "1000000", stdin=-1
    )
    assert process.stdin is not None
    process.stdin.write(b"hello\nagain\n")
    process.stdin.flush()
    first = wait_for_output(process.stdout)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    text = (first + out).decode()
    assert text.endswith("\n")
    assert ("1234567890" * 100_000).startswith(text.rstrip("\n"))


def test_ctrl_c_stops_an_answer_alone_where_lines_are_typed(alphabet: Path, tmp_path: Path) -> None:
    template = tmp_path / "endless.jinja"
    template.write_text(ENDLESS, encoding="utf-8")
    parent, child = pty.openpty()
    process = start(
        "chat", alphabet, *USE_BACKEND, "--chat-template", template, "-c", "1000000", stdin=child
    )
    os.close(child)
    os.write(parent, b"hello\n")
    wait_for_output(process.stdout)
    process.send_signal(signal.SIGINT)
    os.write(parent, b"/undo\n/quit\n")
    _, err = process.communicate(timeout=60)
    os.close(parent)
    assert process.returncode == 0, err
    assert b"stopped; what there is of the answer is kept" in err
    assert b"took back: hello" in err


def test_numbers_that_are_not_finite_do_not_end_the_chat(tmp_path: Path) -> None:
    model = write_alphabet_model(tmp_path / "broken.gguf", broken_at="m")
    saved = tmp_path / "talk.json"
    code, out, err = chat(model, f"hello\n/save {saved}\n/undo\nhello\n", "-q")
    assert (code, out) == (1, "abcdefghijklm\n" * 2)
    told = err.splitlines()
    assert len(told) == 2
    assert all(line.startswith("error: The model's numbers are not finite: ") for line in told)
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert [m["content"] for m in messages] == ["hello", "abcdefghijklm"]


def test_there_must_be_something_to_continue(alphabet: Path, tmp_path: Path) -> None:
    code, out, err = chat(alphabet, "hello\n", "--continue", env={"MOESTREAM_STATE": str(tmp_path)})
    assert (code, out) == (1, "")
    assert "There is no conversation to continue" in err
    nowhere = tmp_path / "file"
    nowhere.touch()
    env = {"MOESTREAM_STATE": str(nowhere)}
    code, out, err = chat(alphabet, "hello\nagain\n/help\n", env=env)
    assert (code, out) == (0, f"{ALPHABET}\n" * 2)
    assert err.count("this conversation is not kept") == 1
    assert "is not saved" in err
    assert "--continue" not in err
    assert "after its first turn" not in err


def test_the_model_of_a_conversation_is_found_behind_a_mark(alphabet: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    value = {"model": str(alphabet), "messages": [{"role": "system", "content": "Be brief."}]}
    saved.write_text(json.dumps(value), encoding="utf-8-sig")
    assert model_of(saved) == str(alphabet)
    saved.write_text(json.dumps(value), encoding="utf-8")
    assert model_of(saved) == str(alphabet)


def test_what_was_cleared_is_still_kept(alphabet: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_STATE": str(tmp_path)}
    lines = "one\n/help\n/clear\ntwo\n"
    code, _, err = chat(alphabet, lines, env=env)
    assert code == 0
    assert f"in {tmp_path}/chats/" in err
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "chats").iterdir()]
    assert sorted('"one"' in text for text in texts) == [False, True]
    assert sorted('"two"' in text for text in texts) == [False, True]
