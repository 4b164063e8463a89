"""The peak of a run is within its budget, whatever the context, the method or the prompt."""

import os
import sys
from itertools import product
from pathlib import Path

import pytest

from bench.peak_memory import measure

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.demo import demo_path

MIB = 1 << 20
GOLDEN = Path(__file__).parent / "data" / "golden" / "qwen3moe.gguf"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
METHODS = ("auto", "direct", "pread", "madvise")
CASES = [  # method, budget, context, prompt
    *product(METHODS, ["least", "500M", "1000M"], [8192], [16]),
    # The whole context: all that a plan counts is in use at once, and experts have given way.
    *product(METHODS, ["1000M"], [2048], [2000]),
    *product(["direct", "pread", "madvise"], ["500M"], [2048], [2000]),  # auto is one of these
    *product(["direct", "madvise"], ["least"], [2048], [2000]),
    # What grows with a prompt, of each of the two ways to hold experts.
    *product(["direct", "madvise"], ["500M"], [8192], [8000]),
]


def peak(**spec: object) -> dict:
    return measure({"model": str(GOLDEN), "backend": "cpu", "context": 128, "prompt": 100, **spec})


@LINUX
@pytest.mark.parametrize("io", METHODS)
def test_a_small_model_keeps_a_budget(io: str) -> None:
    found = peak(io=io, budget="400M")
    assert found["peak_bytes"] <= 1.02 * found["budget_bytes"]


@LINUX
@pytest.mark.slow
@pytest.mark.skipif(not demo_path().exists(), reason=f"no demo model at {demo_path()}")
@pytest.mark.parametrize(("io", "budget", "context", "prompt"), CASES)
def test_the_demo_keeps_its_budget(io: str, budget: str, context: int, prompt: int) -> None:
    spec = {"model": str(demo_path()), "context": context, "io": io, "prompt": prompt}
    if budget == "least":
        least = peak(**{**spec, "budget": "1G", "prompt": 1})["least_bytes"]
        budget = f"{-(-least // MIB)}M"
    found = peak(**spec, budget=budget)
    assert found["peak_bytes"] <= 1.02 * found["budget_bytes"], found


@LINUX
@pytest.mark.slow
@pytest.mark.skipif(not demo_path().exists(), reason=f"no demo model at {demo_path()}")
@pytest.mark.parametrize(
    ("budget", "prompt"), [("500M", 16), ("1000M", 16), ("500M", 528)], ids=str
)
def test_the_demo_keeps_its_budget_on_mlx(budget: str, prompt: int) -> None:
    pytest.importorskip("mlx.core", reason="MLX is not installed (the extra mlx)")
    spec = {"model": str(demo_path()), "backend": "mlx", "context": 8192, "io": "auto"}
    found = peak(**spec, budget=budget, prompt=prompt)
    assert found["peak_bytes"] <= 1.02 * found["budget_bytes"], found


def write_in_folios(path: Path, *, large: bool) -> None:
    """A copy of the demo that the page cache holds in as large or as small folios as it has."""
    with open(demo_path(), "rb") as source, open(path, "wb", buffering=0) as copy:  # noqa: PTH123
        while data := source.read(8 * MIB):
            copy.write(data)
        os.fdatasync(copy.fileno())
    if large:
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        while file.read(MIB):
            pass


@LINUX
@pytest.mark.slow
@pytest.mark.skipif(not demo_path().exists(), reason=f"no demo model at {demo_path()}")
@pytest.mark.parametrize("large", [True, False])
def test_a_budget_is_kept_whatever_folios_the_file_is_cached_in(
    large: bool, tmp_path: Path
) -> None:
    write_in_folios(tmp_path / "demo.gguf", large=large)
    spec = {"model": str(tmp_path / "demo.gguf"), "context": 8192, "io": "madvise"}
    found = peak(**spec, budget="500M", prompt=2000)
    assert found["peak_bytes"] <= 1.02 * found["budget_bytes"], found
