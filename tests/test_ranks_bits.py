"""A model on several ranks says what it says on one, to the bit."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import run
from ranks import LIMIT_S, Ranks, free_ports

from golden.files import Model, is_f32
from golden.models import MODELS

pytestmark = pytest.mark.alone
PROGRAM = Path(__file__).with_name("rank_program.py")
SIX = ("qwen3moe", "gpt-oss-mxfp4", "gemma4", "qwen3next", "glm-dsa", "hy_v4-q8_0", "glm5-next")
MLX = ("qwen3moe", "gpt-oss-mxfp4", "gemma4", "qwen3next", "glm-dsa")
DEEP = ("gpt-oss-mxfp4", "gemma4", "qwen3next", "lfm2moe", "jamba", "deepseek32")
"""With three layers that a part can begin with, and more."""


def parts(folder: Path, ranks: int, how: str, *names: str) -> dict[str, int]:
    """How many layers the first rank had of each model, all of which gave the same bits."""
    with Ranks(folder, [[str(PROGRAM), how, *names]] * ranks) as running:
        out, told = running.end()
        assert running.first.returncode == 0, told
        assert running.codes() == [0] * ranks
    return json.loads(out)


HOW = ["mapped", "pread", "madvise", "uneven", "served"]
FAST = ("uneven",)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=() if how in FAST else pytest.mark.slow) for how in HOW]
)
def test_two_ranks(tmp_path, how):
    assert set(parts(tmp_path, 2, how, *SIX)) == set(SIX)


@pytest.mark.slow
def test_ranks_share_a_servers_batch(tmp_path):
    assert set(parts(tmp_path, 2, "served", "qwen3moe", "qwen3next")) == {"qwen3moe", "qwen3next"}


def test_each_rank_has_the_profile_of_its_layers(tmp_path):
    assert set(parts(tmp_path, 2, "profiled", "qwen3moe", "qwen3next")) == {"qwen3moe", "qwen3next"}


@pytest.mark.slow
def test_two_ranks_of_mlx(tmp_path):
    assert set(parts(tmp_path, 2, "mlx", *MLX)) == set(MLX)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mapped", "pread", "uneven", "served"])
def test_three_ranks(tmp_path, how):
    found = parts(tmp_path, 3, how, *DEEP)
    assert set(found) == set(DEEP)


def turns(models: Sequence[Model]) -> dict[str, list[str]]:
    """Which models go which way: all that differ in more than types go every way.

    The others, whose architecture there is in F32 too, go one way each: where a model is cut does
    not depend on its types, and every way meets a fifth of them.
    """
    plain = [model.name for model in models if is_f32(model)]
    known = {model.arch for model in models if is_f32(model)}
    plain += [model.name for model in models if model.arch not in known]
    others = [model.name for model in models if model.name not in plain]
    return {how: plain + others[turn :: len(HOW)] for turn, how in enumerate(HOW)}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_all_architectures(tmp_path, how):
    alone = ("mixtral-k", "qwen4exp", "gemma4-e", "deepseek4")  # of one layer, or by tokens
    names = turns([model for model in MODELS if not model.name.startswith(alone)])[how]
    assert len(parts(tmp_path, 2, how, *names)) == len(names)


def test_the_command_as_mlx_starts_it(tmp_path):
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    code = "from mlx._distributed_utils.launch import main; main()"
    launch = [sys.executable, "-c", code, "-n", "2", "--hosts", "127.0.0.1"]
    launch += ["--starting-port", str(free_ports(2)[0])]
    launch += [f"--env={name}={os.environ[name]}" for name in ("PYTHONPATH",) if name in os.environ]
    command = [sys.executable, "-m", "moestream", "generate", str(model), "-p", "x", "--temp", "0"]
    found = subprocess.run(
        [*launch, "--", *command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
    assert found.returncode == 0
    assert found.stdout == f"{ALPHABET}\n"


NOTES_BUDGETS = """
import sys
from moestream.engine.engine import Engine
plan = Engine.plan_memory
def noted(engine, budget):
    sys.stderr.write(f"budget {budget}\\n")
    return plan(engine, budget)
Engine.plan_memory = noted
from moestream.__main__ import main
main()
"""


@pytest.mark.slow
def test_each_rank_hears_of_every_budget(tmp_path):
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    command = ["bench", str(model), "-p", "0", "-n", "2", "-r", "1", "--json"]
    command = ["-c", NOTES_BUDGETS, *command, "--budget", "400M,none,300M"]
    with Ranks(tmp_path, [command] * 2) as ranks:
        out, told = ranks.end()
        other = ranks.processes[1].communicate(timeout=LIMIT_S)[1]
        assert ranks.codes() == [0, 0], told
    for each in (told, other):
        assert [line for line in each.splitlines() if line.startswith("budget ")] == [
            "budget 400M",
            "budget 300M",
        ]
    assert [row["budget"] for row in json.loads(out)] == ["400M", "none", "300M"]


@pytest.mark.parametrize(
    ("command", "more"),
    [("bench", "--budget 2G"), ("bench", "--strategy none"), ("chat", "--budget none")],
)
def test_shares_are_the_only_budgets(command, more):
    found = run(command, "x", "--hosts-share", "1G,1G", *more.split())
    assert found.returncode == 2
    assert more.split()[0] in found.stderr
    assert "give one of them" in " ".join(found.stderr.split())


@pytest.mark.slow
def test_a_row_is_labelled_with_the_shares(tmp_path):
    model = write_alphabet_model(tmp_path / "abc.gguf", layers=3)
    command = ["-m", "moestream", "bench", str(model), "-p", "0", "-n", "2", "-r", "1", "--json"]
    with Ranks(tmp_path, [[*command, "--hosts-share", "400M,300M"]] * 2) as ranks:
        out, told = ranks.end()
        assert ranks.codes() == [0, 0], told
    assert [row["budget"] for row in json.loads(out)] == ["400M,300M"]
