"""A template may be anything: its time, its output and its memory are bounded."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from command_line import run

from moestream.chat.template import ChatTemplate
from moestream.errors import TemplateError

USER = {"role": "user", "content": "Hi"}
slow = partial(pytest.param, marks=pytest.mark.slow)  # 2 s each
LOOPS = "{% for i in range(99999) %}" * 4 + "x" + "{% endfor %}" * 4


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (LOOPS.replace("x", ""), "fails: it takes more than 2 seconds"),
        slow(LOOPS, "fails: it (writes more than 16 MiB|takes more than 2 seconds)"),
        ("{{ 10 ** (10 ** 10) }}", "cannot be compiled: it takes more than"),
        slow(
            "{% set n = messages|length %}{{ (9 + n) ** ((9 + n) ** 10) }}", "fails: it takes more"
        ),
        ("{{ 'a' * 10 ** 11 }}", "it takes more than 512 MiB of memory"),
        ("{{ messages * 10 ** 11 }}", "fails: it takes more than 512 MiB of memory"),
        ("{{ '%999999999d' % messages|length }}", "fails: it takes more than 512 MiB of memory"),
        ("{{ 'a' | center(900000000) }}", "it takes more than 512 MiB of memory"),
        ("{{ messages[0].content * 9000000 }}", "fails: it writes more than 16 MiB"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails: maximum recursion depth"),
        ("{{ raise_exception('x' * 100000) }}", "fails: x{500}$"),
    ],
)
def test_what_takes_too_much_is_an_error(source: str, complaint: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateError, match=complaint):
        ChatTemplate.from_source(source).render([USER])
    assert time.monotonic() - started < 10  # 2 s and a start, on a machine with much to do


def test_a_template_is_of_use_after_a_failure() -> None:
    source = "{% if messages|length > 1 %}" + LOOPS + "{% endif %}{{ messages[0].content }}"
    template = ChatTemplate.from_source(source)
    with pytest.raises(TemplateError):
        template.render([USER, USER])
    assert template.render([USER]) == "Hi"


def test_a_process_that_was_ended_meanwhile_is_started_anew() -> None:
    template = ChatTemplate.from_source("{{ messages[0].content }}")
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = template._renderer._process
        assert process is not None
        process.send_signal(number)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert template.render([USER]) == "Hi"
        assert template._renderer._process is not process


def test_threads_may_share_a_template() -> None:
    template = ChatTemplate.from_source("{{ messages[0].content }}")
    found: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(20):
            found[number] = template.render([{"role": "user", "content": f"{number}"}])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}" for number in range(4)}


def test_the_command_line_says_it_in_one_line(tmp_path: Path, alphabet: Path) -> None:
    (tmp_path / "hang.jinja").write_text(LOOPS.replace("x", ""))
    done = run("generate", alphabet, "-p", "hi", "--chat-template", tmp_path / "hang.jinja")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith("it takes more than 2 seconds")


def test_a_template_may_be_given_as_text(tmp_path: Path, alphabet: Path) -> None:
    text = "{% for m in messages %}{{ m.content }}{% endfor %}" * 6
    words = ["-n", "1", "--temp", "0", "-q", "--json"]
    done = run("generate", alphabet, "-p", "j", "--chat-template", text, *words)
    assert '"prompt_tokens": 6' in done.stdout, done.stderr
    for wrong in ("x" * 5000, "nothing", str(tmp_path / "no.jinja")):
        done = run("generate", alphabet, "-p", "j", "--chat-template", wrong)
        assert done.returncode == 1
        assert "no chat template is called" in done.stderr


def test_a_mark_at_the_beginning_of_a_file_is_not_of_the_template(
    tmp_path: Path, alphabet: Path
) -> None:
    path = tmp_path / "bom.jinja"
    path.write_bytes(b"\xef\xbb\xbf{{ messages[0].content }}")
    words = ["-n", "1", "--temp", "0", "-q", "--json"]
    done = run("generate", alphabet, "-p", "j", "--chat-template", path, *words)
    assert '"prompt_tokens": 1' in done.stdout, done.stderr
