"""``moestream serve`` as a process: how it starts, what it says, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from alphabet_model import ALPHABET
from command_line import run, start
from serving import user

from moestream.errors import ResourceError
from moestream.profiles import read_profile
from moestream.server.listener import Listener
from moestream.server.options import ServerOptions


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple["subprocess.Popen[bytes]", str, str]]:
    """A server with its URL, and its first line."""
    process = start("serve", *arguments, "--port", "0", "-c", "65536")
    try:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        found = re.match(r"(http://\S+:\d+): ", line)
        assert found, line + process.stderr.read().decode()
        while httpx2.get(f"{found[1]}/health").status_code == 503:
            time.sleep(0.02)
        yield process, found[1], line
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_run_from_its_first_line_to_its_end(
    alphabet: Path, signum: signal.Signals, status: int
) -> None:
    with started(alphabet) as (process, url, line):
        assert line.endswith("alphabet, all of it in memory; context 65536, 4 at a time\n")
        said = [*user("0"), {"role": "assistant", "content": "0"}]
        body = {"messages": said, "stream": True}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            lines = (line for line in response.iter_lines() if line.startswith("data: "))
            next(lines)
            process.send_signal(signum)
            rest = list(lines)
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert process.wait(timeout=5) == status
        assert process.communicate() == (b"", b"")


def test_options_are_the_defaults_of_requests(alphabet: Path) -> None:
    flags = ("-n", "3", "--temp", "0.5", "--alias", "gpt-4o", "--alias", "other", "-v")
    with started(alphabet, *flags) as (process, url, _):
        told = httpx2.post(f"{url}/v1/chat/completions", json={"messages": user("hi")}).json()
        assert told["choices"][0]["message"]["content"] == ALPHABET[:3]
        assert told["model"] == "gpt-4o"
        props = httpx2.get(f"{url}/props").json()["default_generation_settings"]["params"]
        assert (props["temperature"], props["n_predict"]) == (0.5, 3)
        for name in ("gpt-4o", "other", "alphabet"):
            body = {"prompt": "a", "model": name}
            assert httpx2.post(f"{url}/v1/completions", json=body).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        assert b"POST /v1/completions 200 " in errors
        assert b"0 of the prompt's 1 tokens were kept" in errors


def test_keys_from_everywhere(alphabet: Path, tmp_path: Path, monkeypatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("from a file\n\nanother\n")
    monkeypatch.setenv("MOESTREAM_API_KEY", "environment")
    with started(alphabet, "--api-key-file", keys) as (_, url, _line):
        for key, status in (
            ("from a file", 200),
            ("another", 200),
            ("environment", 200),
            ("wrong", 401),
        ):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx2.get(f"{url}/v1/models", headers=headers).status_code == status, key


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "0.0.0.0"), "--insecure"),
        (("--host", "::"), "--insecure"),
        (("--host", "0.0.0.0", "--api-key-file", "/nowhere"), "cannot be read"),
        (("--api-key-file", os.devnull), "has no key"),
        (("--port", "70000"), "65535"),
        (("--parallel", "0"), "1"),
        (("--trace", "trace.gz"), "records no traces"),
        (("-q", "-v"), "exclude"),
    ],
)
def test_command_lines_that_make_no_sense(
    alphabet: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = run("serve", alphabet, *arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_profile_of_all_that_was_served(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    with started(alphabet, "--save-profile", path) as (process, url, _):
        used = 0
        for text in ("hi", "there"):
            body = {"messages": user(text), "temperature": 0, "cache_prompt": False}
            told = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
            used += told["usage"]["total_tokens"] - 1  # the token that ends it is not run
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert f"{used} tokens profiled in {path}" in said.decode()
    profile = read_profile(path, "served")
    assert profile.tokens == used
    assert profile.uses.sum() == 2 * used


def test_what_does_not_load_ends_with_a_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"no model")
    for model in (wrong, "no-such-model"):
        done = run("serve", model, "--port", "0")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken(alphabet: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", alphabet, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is in use; choose another with --port, or 0 for any\n"
    )


@pytest.mark.parametrize(
    ("host", "told"),
    [("192.0.2.1", "no address of this machine"), ("no such host", "no address and no name")],
)
def test_a_host_that_is_not_ours(host: str, told: str) -> None:
    with pytest.raises(ResourceError, match=told):
        Listener(ServerOptions(host=host, port=0))


def test_ipv6(alphabet: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with started(alphabet, "--host", "::1") as (_, url, _line):
        assert url.startswith("http://[::1]:")
        assert httpx2.get(f"{url}/health").json() == {"status": "ok"}


def test_the_port_is_open_before_the_model_is_there() -> None:
    with Listener(ServerOptions(port=0)) as listener:
        answer = httpx2.get(f"{listener.url}/health")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "Loading model"
        body = {"messages": user("hi")}
        assert httpx2.post(f"{listener.url}/v1/chat/completions", json=body).status_code == 503
        assert httpx2.get(f"{listener.url}/v1/models").json()["data"] == []


def test_other_commands_do_not_pay_for_it() -> None:
    code = (
        "import sys, moestream.cli as c; c.cli.commands['serve'];"
        "print([m for m in ('starlette', 'uvicorn', 'pydantic', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
