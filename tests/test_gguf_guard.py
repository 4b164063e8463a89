"""A file that is cut short while it is mapped: an error, neither a bus error nor a wrong token."""

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from alphabet_model import write_alphabet_model

from moestream import Engine
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile

pytestmark = pytest.mark.skipif(not find_spec("moestream._native"), reason="needs native code")
GOLDEN = Path(__file__).parent / "data" / "golden"


@pytest.fixture(params=["qwen3moe", "llama"])  # experts, and an embedding, in the mapped file
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes((GOLDEN / f"{request.param}.gguf").read_bytes())
    return path


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(4096)


def test_a_mapped_model_cut_short_is_an_error_in_the_pass_that_meets_it(model: Path) -> None:
    with Engine.open(model, context_length=64) as engine:
        session = engine.session()
        session.forward([1, 2, 3])
        cut(model)
        with pytest.raises(ModelFormatError, match="was cut short while it was read"):
            session.forward([100])
        assert session.tokens == [1, 2, 3]


def test_what_is_missing_of_a_tensor_is_noticed(model: Path) -> None:
    with GGUFFile.open(model) as file:
        file.check_intact()
        last = max(file.tensors.values(), key=lambda info: info.offset)
        cut(model)
        assert not file.tensor(last.name).data.any()
        with pytest.raises(ModelFormatError, match="was cut short"):
            file.check_intact()


def test_another_mapping_is_not_touched(tmp_path: Path) -> None:
    """A bus error of somebody else's mapping still ends the process."""
    write_alphabet_model(tmp_path / "model.gguf")
    (tmp_path / "other").write_bytes(bytes(1 << 16))
    script = """
import mmap, pathlib, sys
from moestream.gguf import GGUFFile
file = GGUFFile.open(sys.argv[1])
with open(sys.argv[2], "r+b") as other:
    data = mmap.mmap(other.fileno(), 0)
    other.truncate(0)
print(data[1 << 15])
"""
    command = [sys.executable, "-c", script, tmp_path / "model.gguf", tmp_path / "other"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGBUS
