"""Files that say what is not so: an error of one line, in time, or they run.

The long campaign is scripts/oracle/fuzz_files.py.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from moestream.gguf import GGUFFile
from moestream.models.summary import unsupported_reason
from oracle.fuzz_files import campaign
from oracle.gguf_parts import take_apart

GOLDEN = Path(__file__).parent / "data" / "golden"


def test_a_short_campaign() -> None:
    found, wrong = campaign(first=0, count=200, processes=1)
    assert wrong == []
    assert found["runs"] > 10
    assert found["refused"] > 50


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("gemma4", "rope.dimension_count_swa", 7),
        ("gemma4", "rope.dimension_count_swa", 2**30),
        ("gemma4", "attention.key_length_swa", 2**30),
        ("llama", "block_count", 300_000_000),
        ("llama", "attention.key_length", 2**30),
        ("llama", "attention.head_count", 2**31),
        ("llama", "context_length", 2**32 - 1),
        ("qwen3next", "ssm.state_size", 2**20),
        ("qwen3next", "ssm.conv_kernel", 2**20),
        ("qwen3next", "attention.head_count", 2**30),
        ("lfm2moe", "shortconv.l_cache", 2**31 - 1),
        ("deepseek2-v3", "attention.key_length_mla", 2**30),
        ("deepseek2-v3", "nextn_predict_layers", 2**31),
        ("glm4moe", "leading_dense_block_count", 2**31),
        ("gpt-oss", "block_count", 2**31 - 1),
    ],
)
def test_sizes_are_held_against_the_tensors(
    model: str, key: str, value: Any, tmp_path: Path
) -> None:
    parts = take_apart(GOLDEN / f"{model}.gguf")
    name = f".{key}".encode()
    kept = [each for each in parts.keys if not each.name.endswith(name)]
    architecture = next(each.value for each in parts.keys if each.name == b"general.architecture")
    changed = type(parts.keys[0])(architecture + name, 4, value)
    parts.keys = [*kept, changed]
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(parts))
    started = time.monotonic()
    with GGUFFile.open(path) as file:
        reason = unsupported_reason(file)
    assert time.monotonic() - started < 2
    assert reason is not None
    assert "\n" not in reason
