"""One verdict whether a model fits, whoever asks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.cli.commands.models.figures import file_figures
from moestream.forecast.estimate import Measured
from moestream.forecast.verdict import Fit, Verdict, fit_of, fit_of_sizes, plan_of, verdict_of
from moestream.gguf import GGUFFile
from moestream.streaming.memory import Memory

GB = 1_000_000_000
GOLDEN = Path(__file__).parent / "data" / "golden" / "qwen3moe.gguf"


def memory(n_bytes: int) -> Memory:
    return Memory(n_bytes, n_bytes, "a test")


@pytest.mark.parametrize(
    ("gigabytes", "verdict"),
    [(64, "fits"), (24, "fits"), (16, "streams"), (8, "streams"), (2.4, "below the floor")],
)
def test_a_30b_model(gigabytes: float, verdict: Verdict) -> None:
    sizes = (int(18.6 * GB), int(17.6 * GB), int(1.1 * GB))
    assert fit_of_sizes(memory(int(gigabytes * GB)), *sizes).verdict == verdict
    assert fit_of_sizes(memory(GB), *sizes).verdict == "too little"


def test_the_least_of_use_is_where_the_verdict_turns() -> None:
    with GGUFFile.open(GOLDEN) as file:
        plan = plan_of(file, memory(GB))
    needed = fit_of(plan).needed_bytes
    assert needed is not None
    least = replace(plan, budget_bytes=needed, experts_bytes=plan.floor_bytes)
    assert verdict_of(least) == "streams"
    less = replace(least, budget_bytes=needed - 1, experts_bytes=plan.floor_bytes - 1)
    assert verdict_of(less) == "below the floor"


def test_what_is_not_known_is_not_guessed() -> None:
    assert fit_of_sizes(memory(16 * GB), None, None, None) == Fit("unknown")
    assert fit_of_sizes(memory(16 * GB), 20 * GB, None, None) == Fit("unknown")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all plans: to measure the machine takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    "mebibytes",
    [100, 1900, *(pytest.param(each, marks=pytest.mark.slow) for each in (200, 300, 500))],
)
def test_a_list_and_a_plan_agree(mebibytes: int, alphabet: Path, cache: Path) -> None:
    env = {"MOESTREAM_CACHE": str(cache)}
    arguments = ("--memory", f"{mebibytes}M", "--json")
    value = json.loads(run("plan", alphabet, *arguments, env=env).stdout)
    found = file_figures("mine", alphabet).estimate(memory(mebibytes << 20), Measured())
    assert found.fit.verdict == value["case"]
