"""``doctor --hosts``: what several machines are asked before anything is loaded."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command_line import run
from ranks import free_ports
from streamed import GOLDEN

from moestream.ranks.hello import Hello
from moestream.ranks.probing import Found, Host

HELLO = Hello("rank 0 (a)", "1", "llama", "m.gguf", 9, "ab", "cpu", 64, 1 << 30, 1e9)
HERE = "127.0.0.1"


def look(*options: str, hosts: str = f"{HERE},{HERE}"):
    """As a person types it; the commands of this installation are found first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    port = str(free_ports(hosts.count(",") + 1)[0])
    told = ("--hosts", hosts, "--starting-port", port, *options)
    return run("doctor", *told, env={"PATH": path})


def test_two_hosts_are_looked_at():
    done = look("--model", str(GOLDEN / "qwen3moe.gguf"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [host["name"] for host in found["hosts"]] == [f"rank {n} ({HERE})" for n in (0, 1)]
    hashes = {host["hello"]["header_sha256"] for host in found["hosts"]}
    assert len(hashes) == 1
    assert found["round_trip_s"] > 0
    assert min(found["bandwidths"]) > 0
    assert found["problems"] == []


@pytest.mark.slow
def test_what_is_found_is_a_table():
    done = look("--model", "nowhere.gguf")
    assert done.returncode == 1
    for told in ("moestream", f"rank 1 ({HERE})", "around all of them: ", "to change"):
        assert told in done.stdout
    assert f"rank 1 ({HERE}): no model is called 'nowhere.gguf'" in done.stdout


def test_a_host_that_is_not_there():
    done = look(hosts=f"{HERE},nowhere.invalid")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere.invalid cannot be reached: ")
    assert "see that ssh nowhere.invalid works" in done.stderr


def test_one_host_is_too_few():
    done = look(hosts="a")
    assert done.returncode == 2
    assert "two addresses or more are expected" in done.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"version": "2"}, ["rank 1 (b) runs moestream 2, and rank 0 (a) 1; install 1 there"]),
        ({"hello": asdict(replace(HELLO, name="rank 1 (b)", n_bytes=8))}, ["rank 1 (b) has anoth"]),
        ({"hello": None, "wrong": "no such file"}, ["rank 1 (b): no such file"]),
    ],
)
def test_what_is_wrong_names_its_host(change, told):
    first = Host("rank 0 (a)", "1", "cpu", 1 << 30, 1e9, asdict(HELLO))
    other = replace(first, name="rank 1 (b)", **change)
    found = Found([first, other], 1e-3, [1e9, 1e9])
    assert [text[: len(start)] for text, start in zip(found.problems, told, strict=True)] == told
