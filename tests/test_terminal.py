"""The parts of the terminal that need none: what is drawn, and what keys do."""

import io
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from moestream.terminal.answer import AnswerView
from moestream.terminal.interrupt import Terminated, interruptible
from moestream.terminal.line_editor import Candidates, LineEditor, open_history
from moestream.terminal.live import LiveRegion
from moestream.terminal.markdown import BlockStream, Line, render
from moestream.terminal.status import Rates, Status, sparkline

STATUS = Status("demo", 100, 1000, "answering", 12.34, (0.905, 1 << 20, 5 << 30))


# --- the status line ---


def test_the_line_tells_everything_where_there_is_room() -> None:
    assert STATUS.line(200, rates=[1, 2]) == (
        "demo │ answering │ 12.3 tok/s │ ▅█ │ context 100/1000 (10%) │ hits 90.5% │ "
        "pinned 1.00 MiB │ read 5.00 GiB"
    )
    assert Status("demo", 0, 10).line(200, ascii_only=True) == "demo | context 0/10 (0%)"
    unasked = Status("demo", 0, 10, streamed=(None, 0, 1 << 20)).line(200, ascii_only=True)
    assert unasked == "demo | context 0/10 (0%) | pinned 0 bytes | read 1.00 MiB"
    assert STATUS.line(200, rates=[1, 2], ascii_only=True).isascii()


@pytest.mark.parametrize("width", range(1, 100))
def test_the_line_never_takes_more_than_there_is(width: int) -> None:
    line = STATUS.line(width, rates=[1, 2, 3])
    assert len(line) <= width
    if width >= 22:
        assert "answering" in line
        assert "tok/s" in line


def test_a_sparkline_goes_from_nothing_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert sparkline([]) == sparkline([0, 0]) == ""


def test_rates_are_taken_over_a_quarter_of_a_second() -> None:
    rates = Rates()
    for step in range(10):
        rates.see(step, step * 0.1)
    assert list(rates.values) == pytest.approx([10, 10, 10])
    rates.see(9, 9.0)  # nothing new: the next rate is over all of the wait
    rates.see(11, 9.9)
    assert rates.values[-1] == pytest.approx(2 / 9)


# --- Markdown ---

TEXT = """# Title

A paragraph
of two lines.

- one
- two

  of two blocks

```python
def f():

    return "\u2028"
```
after

| a | b |
|---|---|
| 1 | 2 |

end"""


def blocks_of(pieces: list[str]) -> list[str]:
    stream, found = BlockStream(), []
    for piece in pieces:
        found += stream.add(piece)
    return [*found, stream.finish()]


def test_blocks_are_the_same_however_the_text_comes() -> None:
    whole = blocks_of([TEXT])
    assert len(whole) == 7
    assert whole[3].startswith("```python")
    for size in (1, 2, 7):
        pieces = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
        assert [b.strip("\n") for b in blocks_of(pieces)] == [b.strip("\n") for b in whole]


@given(st.lists(st.text("ab \n#-`>*|1.[]():\u2028"), max_size=20))
def test_no_text_is_lost_or_changed(pieces: list[str]) -> None:
    assert "\n".join(blocks_of(pieces)).split() == "".join(pieces).split()


def test_nothing_steers_the_terminal() -> None:
    (block,) = blocks_of(["a\x1b[2Jb\x07\r\n\tc\x9b"])
    assert block == "a\ufffd[2Jb\ufffd\n\tc\ufffd"


def console(width: int = 80, **options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [8, 20, 79])
def test_lines_fit_and_have_no_space_at_their_ends(width: int) -> None:
    for text in (TEXT, "x" * 300, "字" * 50):
        lines = render(console(no_color=True, color_system=None), text, width, fold_code=True)
        assert lines[0].width
        assert lines[-1].width
        for line in lines:
            assert line.text == line.text.rstrip()
            assert line.width <= width


def test_code_is_coloured_and_reasoning_dimmed() -> None:
    label, line = render(console(), "```python\nreturn 1\n```", 80)
    assert "\x1b[2mpython" in label.text
    assert "\x1b[35mreturn" in line.text
    assert line.width == len("return 1")
    (line,) = render(console(), "hm", 80, "dim")
    assert line.text.startswith("\x1b[2mhm")
    plain = render(console(color_system=None), "**a**", 80)
    assert plain == [Line("a", 1)]


def test_what_cannot_be_drawn_is_drawn_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RecursionError

    monkeypatch.setattr("moestream.terminal.markdown.draw", fail)
    assert render(console(color_system=None), "**a**", 80) == [Line("**a**", 5)]


# --- the region that is drawn over ---


def line(text: str) -> Line:
    return Line(text, len(text))


def test_the_region_is_drawn_over_and_counts_rows_again_when_made_narrower() -> None:
    written: list[str] = []
    size = [(10, 5)]
    region = LiveRegion(written.append, lambda: size[0])
    region.draw([], [line("one"), line("12345678")])
    assert "\x1b[?25l" in written[-1]
    region.draw([line("done")], [line("two")])
    assert "\r\x1b[1Adone\x1b[K\r\ntwo\x1b[J" in written[-1]
    region.draw([], [line("one"), line("12345678")])
    size[0] = (4, 5)
    region.draw([], [line("x")])
    assert "\r\x1b[2A\x1b[Jx\x1b[J" in written[-1]  # one row, and one that is two by now
    region.close()
    assert written[-1] == "\r\x1b[J\x1b[?25h"
    region.close()
    assert len(written) == 5


def test_a_long_line_is_wrapped_by_the_terminal() -> None:
    written: list[str] = []
    region = LiveRegion(written.append, lambda: (10, 5))
    region.draw([], [line("live")])
    region.draw([line("x" * 20), line("y")], [])
    # Erased before, not after: the cursor is on the last x then.
    assert f"\r\x1b[J{'x' * 20}\r\ny\x1b[K\r\n" in written[-1]


def test_the_last_lines_are_kept_where_rows_are_few() -> None:
    written: list[str] = []
    region = LiveRegion(written.append, lambda: (10, 3))
    region.draw([], [line(letter) for letter in "abcdefg"])
    assert "f\x1b[K\r\ng\x1b[J" in written[-1]
    assert "e" not in written[-1]


def test_an_answer_stands_whole_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def size() -> tuple[int, int]:
        return 30, 5

    def answer(reasoning: str) -> str:
        region = LiveRegion(written.append, size)
        drawn = console(color_system=None)
        with AnswerView(drawn, region, size, reasoning) as view:
            view.update(STATUS, 1)
            view.add("reasoning", "hm")
            view.add("reasoning", ", so\n\nwell")
            view.add("answer", "one\n\n- a\n- b\n\n")
            view.add("answer", "end")
        final, _ = written[-2:]
        return final.rpartition("\x1b[J")[0].replace("\x1b[K\r\n", "\n")

    thought = "(thought for 0.0 s)"
    rest = f"{thought}\n\none\n\n• a\n• b\n\nend\n"
    monkeypatch.setattr("moestream.terminal.answer.AnswerView._draw", lambda self: None)
    assert answer("show").endswith(f"\nhm, so\n\nwell\n\n{rest}\n")
    assert answer("hide").endswith(f"\n{rest}\n")
    assert "well" not in answer("hide")


# --- the line editor ---


def complete(before: str) -> Candidates | None:
    if not before.startswith("/"):
        return None
    return Candidates(len(before), [("/help", ""), ("/hello", "")]) if len(before) < 4 else None


def read(keys: str, history: Path | None = None, *, times: int = 1) -> list[str | None]:
    kept = None if history is None else open_history(history)
    with create_pipe_input() as source, create_app_session(source, DummyOutput()):
        prompt = LineEditor(complete, kept, input=source, output=DummyOutput())
        source.send_text(keys)
        return [prompt.read(STATUS) for _ in range(times)]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("hello\r", "hello"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("back\\slash\r", "back\\slash"),
        ("say\x1b[200~ one\r\ntwo\n\x1b[201~\r", "say one\ntwo"),
        ("  def f():\x1b\rreturn\r", "  def f():\nreturn"),
        ("typed\x03said\r", "said"),
        ("\x04", None),
        ("typed\x03\x03", None),
        ("\x03\x03", None),
        ("\x03typed\x03said\r", "said"),
        ("\x03a\x7f\x03said\r", "said"),
        ("\x03typed\x03\x03", None),
        ("/hel\x09\r", "/hel"),
    ],
)
def test_keys(keys: str, text: str | None) -> None:
    assert read(keys) == [text]


def test_history_is_kept_for_this_user_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    assert read("one\rtwo\\\rthree\r", path, times=2) == ["one", "two\nthree"]
    assert path.stat().st_mode & 0o777 == 0o600
    up = "\x1b[A"
    assert read(f"{up}{up}{up}\r", path) == ["one"]


def test_history_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_history(tmp_path / "file" / "history")


def test_bytes_that_are_not_of_the_locale_are_read_as_utf8() -> None:
    from moestream.terminal.line_editor import _well_formed

    assert _well_formed("perch\udcc3\udca9 \udcff") == "perché \ufffd"


def test_a_ctrl_c_that_comes_late_is_the_answers() -> None:
    with create_pipe_input() as source, create_app_session(source, DummyOutput()):
        prompt = LineEditor(complete, input=source, output=DummyOutput())
        prompt.late.begin()
        source.send_text("\x03\x03\x03\x03said\r")
        assert prompt.read(STATUS) == "said"
        prompt.late.begin()
        source.send_text("\x03\x03typed\x03\x03")
        assert prompt.read(STATUS) is None


def test_signals_are_wishes_and_the_first_is_told_at_once() -> None:
    told: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    try:
        with interruptible(lambda: told.append(1)) as interrupt:
            assert not interrupt.wanted
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            assert told == [1]
            assert interrupt.ends_program()
            error = interrupt.error()
        assert isinstance(error, Terminated)
        assert error.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # nothing breaks what is saved
        with pytest.raises(KeyboardInterrupt), interruptible() as interrupt, interrupt.waiting():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_signal_heard_just_before_a_wait_breaks_it_off() -> None:
    entered: list[int] = []
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupt.waiting():
            entered.append(1)
    assert entered == []


def test_a_second_end_never_meets_the_handlers_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            set_signal, found = signal.signal, dict[int, object]()

            def watch(number: int, handler: Any) -> Any:
                found.setdefault(number, handler)
                return set_signal(number, handler)

            monkeypatch.setattr(signal, "signal", watch)
        assert found[signal.SIGTERM] is found[signal.SIGHUP] is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        monkeypatch.undo()
        for number, handler in before.items():
            signal.signal(number, handler)
