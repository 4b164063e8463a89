import io
import json
import os
import pty
import subprocess
import sys

import pytest

from moestream import ui


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (98_362_432, "98.4 MB"),
        (1_320_000_000, "1.32 GB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_format_bytes(n_bytes: int, text: str) -> None:
    assert ui.format_bytes(n_bytes) == text


def test_format_count() -> None:
    assert [ui.format_count(n) for n in (8, 134_515_008, 30_532_122_624)] == ["8", "135M", "30.5B"]


def test_messages_are_one_line_without_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    ui.error("bad\nname \x1b[31m\ud800 – è")
    captured = capsys.readouterr()
    assert captured.err == "error: bad\\nname \\x1b[31m\\ud800 – è\n"
    assert captured.out == ""


def test_text_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    ui.write_text("a\n\tb")
    assert capsys.readouterr().out == "a\n\tb"


def test_json_is_one_line_of_unescaped_text(capsys: pytest.CaptureFixture[str]) -> None:
    ui.print_json({"text": "perché\n"})
    assert capsys.readouterr().out == '{"text": "perché\\n"}\n'


def test_json_is_valid_though_a_path_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    ui.prepare()
    ui.print_json({"model": "\udcff.gguf", "text": "è"})
    ui.flush()
    assert json.loads(raw.getvalue()) == {"model": "\udcff.gguf", "text": "è"}


def test_fields_and_tables_line_up_and_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    ui.print_fields("model", [("name", "x" * 300), ("\x1b", "1\x07")])
    ui.print_table("kinds", ["type", ">bytes"], [["Q4_K", "1"], ["F32", "1024"]])
    assert capsys.readouterr().out.splitlines() == [
        "model",
        "  name  " + "x" * 300,
        "  \\x1b  1\\x07",
        "kinds",
        "  type  bytes",
        "  Q4_K      1",
        "  F32    1024",
    ]


def test_progress_names_each_step_once_when_not_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ui.progress() as report:
        for done in range(3):
            report("reading", done, 2)
        report("writing", 0, 1)
    assert capsys.readouterr().err == "reading\nwriting\n"
    with ui.progress(quiet=True) as report:
        report("reading", 0, 2)
    assert capsys.readouterr().err == ""


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    ui.prepare()
    ui.write_text("a")
    ui.error("b")
    ui.print_json({})
    with ui.progress() as report:
        report("reading", 0, 2)


def test_what_the_locale_lacks_is_substituted(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    ui.prepare()
    ui.write_text("perché")
    ui.print_json({"text": "è"})
    ui.flush()
    assert raw.getvalue() == b'perch?{"text": "\xc3\xa8"}\n'
    assert json.loads(raw.getvalue()[6:]) == {"text": "è"}


def on_terminal(code: str, **environment: str) -> str:
    """Run Python code with all its output on a pseudo-terminal; return what came out."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from moestream import ui\n{code}"],
        stdin=child,
        stdout=child,
        stderr=child,
        env=clean | {"TERM": "xterm-256color"} | environment,
    )
    os.close(child)
    output = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(parent)
    assert process.wait() == 0
    return output.decode()


def test_terminals_get_colours_unless_told_not_to() -> None:
    code = "ui.error('no [bold] model')"
    assert "\x1b[1;31merror:\x1b[0m no [bold] model" in on_terminal(code)
    assert on_terminal(code, NO_COLOR="1").replace("\x1b[1m", "").replace("\x1b[0m", "") == (
        "error: no [bold] model\r\n"
    )


def test_terminals_get_long_lines_whole() -> None:
    assert "x" * 200 in on_terminal("ui.note('x' * 200)")


def test_terminals_get_a_sign_of_life() -> None:
    assert "loading [/model] \\x1b" in on_terminal("with ui.working('loading [/model] \x1b'): pass")


def test_terminals_get_a_progress_bar() -> None:
    code = "with ui.progress() as report:\n for i in range(3): report('reading', i, 2)"
    assert "100%" in on_terminal(code)


def test_what_turns_out_to_have_a_length_gets_a_bar() -> None:
    code = "with ui.working('loading') as report:\n for i in range(3): report('reading', i, 2)"
    shown = on_terminal(code)
    assert "loading" in shown
    assert "100%" in shown


def test_work_with_a_length_is_named_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in (False, True):
        with ui.working("loading", quiet=quiet) as report:
            for done in range(3):
                report("reading", done, 2)
    assert capsys.readouterr().err == "reading\n"


def test_heat_is_characters_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ui.print_heat("uses", ["8", "12"], [[0, 0.1, 0.55], [1, 2, -1]])
    assert capsys.readouterr().out.splitlines() == ["uses", "   8   .+", "  12  @@ "]
    ui.print_heat("uses", ["0"], [[0.5] * 300])
    assert len(capsys.readouterr().out.splitlines()[1]) == 2 + 1 + 2 + 300


def test_heat_is_colours_on_a_terminal_and_fits() -> None:
    code = "ui.print_heat('uses', ['0'], [[0.0, 1.0] * 100])"
    shown = on_terminal(code, COLUMNS="60")
    assert "uses (4 in a cell)" in shown
    assert shown.count("\x1b[48;5;231m") == 1  # the hottest of each four, in one stretch
    assert f"{' ' * 50}\x1b[0m" in shown
    assert "@" * 50 in on_terminal(code, COLUMNS="60", NO_COLOR="1")


def test_a_table_on_a_narrow_terminal_is_broken_between_words_alone() -> None:
    from moestream.ui.tables import _broken, _narrowed

    cells = [["name", "what"], ["a-long-name", "it streams, 69 % of it in memory"]]
    widths = _narrowed(cells, [11, 32], 30)
    assert widths == [11, 19]
    assert _broken(cells[1][1], 19) == ["it streams, 69 % of", "it in memory"]
    assert _narrowed(cells, [11, 32], 5) == [11, 8]  # no word is broken


def test_a_models_text_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "a\x1b]0;title\x07\x9b2J\r\n\tb"
    for terminal, shown in ((True, "a\ufffd]0;title\ufffd\ufffd2J\n\tb"), (False, said)):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stdout", out)
        ui.write_text(said)
        assert out.getvalue() == shown


def test_json_does_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ui.print_json({"text": "a\x1b\x9b\x7fé"})
    written = capsys.readouterr().out
    assert written == '{"text": "a\\u001b\\u009b\\u007fé"}\n'
    assert json.loads(written) == {"text": "a\x1b\x9b\x7fé"}


def test_fields_on_a_terminal_are_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "24")  # without it, such a terminal has 80 columns
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", out)
    ui.print_fields("verdict", [("in a line", "it is too little for " + "what is there " * 4)])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("  in a line  it is too")
    assert all(line.startswith(" " * 13) for line in lines[2:])
    assert "it is too little for what is there" in " ".join(" ".join(lines).split())
