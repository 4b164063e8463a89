"""As tolerant as llama.cpp where it loads and runs, as strict where it refuses; and before loading.

``inspect`` and ``plan`` ask what ``generate`` asks.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.constants import GGMLQuantizationType as Type
from vocabulary_files import write_bytes_vocabulary, write_pieces_vocabulary

from moestream.gguf import GGUFFile
from moestream.models import used_names
from moestream.streaming.store import used_tensors
from moestream.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "data" / "golden"
Change = Callable[[dict[str, Any], dict[str, tuple[Any, Type]]], None]


def rewrite(source: Path, target: Path, change: Change) -> Path:
    """Write a model anew with other metadata or tensors."""
    reader = GGUFReader(source)
    keys = {
        name: (field.contents(), field.types)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    values = {name: value for name, (value, _) in keys.items()}
    tensors = {
        tensor.name: (np.array(tensor.data), tensor.tensor_type) for tensor in reader.tensors
    }
    change(values, tensors)
    writer = GGUFWriter(target, values.pop("general.architecture"))
    for name, value in values.items():
        types = keys[name][1] if name in keys else None
        same = types is not None and isinstance(value, list) == (types[0] == GGUFValueType.ARRAY)
        if same and types is not None and types[0] != GGUFValueType.ARRAY:
            writer.add_key_value(name, value, types[0])
        elif isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, GGUFValueType.get_type(value))
    for name, (data, type) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=None if data.dtype == np.float32 else type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def answers(path: Path) -> dict[str, tuple[bool, str]]:
    """What each command says of a model: whether it runs, and the words for it."""
    inspected = json.loads(run("inspect", path, "--json").stdout)
    planned = run("plan", path, "--json")
    generated = run("generate", path, "--raw", "-p", "a", "-n", "1", "-q")
    return {
        "inspect": (inspected["supported"], inspected["unsupported_reason"] or ""),
        "plan": (planned.returncode == 0, planned.stderr),
        "generate": (generated.returncode == 0, generated.stderr),
    }


def drop(name: str) -> Change:
    return lambda values, tensors: tensors.pop(name) and None


def split_experts(values: dict[str, Any], tensors: dict[str, tuple[Any, Type]]) -> None:
    for kind in ("gate", "up", "down"):
        data, type = tensors.pop(f"blk.0.ffn_{kind}_exps.weight")
        for expert, matrix in enumerate(data):
            tensors[f"blk.0.ffn_{kind}.{expert}.weight"] = (matrix, type)


def put(key: str, value: Any) -> Change:
    return lambda values, tensors: values.__setitem__(key, value)


def cast(name: str, dtype: Any) -> Change:
    def change(values: dict[str, Any], tensors: dict[str, tuple[Any, Type]]) -> None:
        tensors[name] = (tensors[name][0].astype(dtype), Type.F64)

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (split_experts, "an old layout; convert the model again"),
        (drop("blk.0.attn_q.weight"), "tensor 'blk.0.attn_q.weight' is missing"),
        (drop("blk.0.ffn_up_exps.weight"), "tensor 'blk.0.ffn_up_exps.weight' is missing"),
        (drop("output_norm.weight"), "tensor 'output_norm.weight' is missing"),
        (put("tokenizer.ggml.pre", "no-such"), "the pre-tokenizer is 'no-such'"),
        (put("tokenizer.ggml.model", "no-such"), "the tokenizer is of kind 'no-such'"),
        (put("tokenizer.ggml.model", "none"), "it has no tokenizer"),
        (put("llama.expert_used_count", 99), "99 experts a token"),
        (put("llama.feed_forward_length", 33), "the metadata asks for"),
        (put("llama.block_count", 2), "tensor 'blk.1.attn_norm.weight' is missing"),
        (put("llama.block_count", 300_000_000), "has tensors of 1 layers"),
        (put("llama.attention.key_length", 2**30), "no dimension of a tensor is larger"),
        (
            cast("blk.0.attn_q.weight", np.float64),
            "tensor 'blk.0.attn_q.weight' is a matrix of F64",
        ),
    ],
)
def test_all_commands_refuse_the_same_for_one_reason(
    alphabet: Path, tmp_path: Path, change: Change, complaint: str
) -> None:
    path = rewrite(alphabet, tmp_path / "m.gguf", change)
    for command, (runs, told) in answers(path).items():
        assert not runs, command
        assert complaint in told, command
        assert len(told.splitlines()) == 1


def with_axes(name: str, shape: tuple[int, ...]) -> Change:
    def change(values: dict[str, Any], tensors: dict[str, tuple[Any, Type]]) -> None:
        data, type = tensors[name]
        tensors[name] = (data.reshape(shape), type)

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("tokenizer.ggml.eos_token_id", 999_999),
        put("tokenizer.ggml.bos_token_id", 2**32 - 1),
        with_axes("output_norm.weight", (1, -1)),
        with_axes("blk.0.ffn_norm.weight", (1, 1, 1, -1)),
        put("llama.attention.head_count", [2]),
        put("llama.feed_forward_length", [32]),
        cast("output_norm.weight", np.float64),
        lambda values, tensors: values.pop("tokenizer.ggml.merges", None) and None,
        lambda values, tensors: tensors.__setitem__(
            "not.used.weight", (np.zeros(8, np.float64), Type.F64)
        ),
    ],
)
def test_what_llama_cpp_runs_runs(alphabet: Path, tmp_path: Path, change: Change) -> None:
    path = rewrite(alphabet, tmp_path / "m.gguf", change)
    assert {command: runs for command, (runs, _) in answers(path).items()} == {
        "inspect": True,
        "plan": True,
        "generate": True,
    }


def test_text_that_is_not_utf_8(alphabet: Path, tmp_path: Path) -> None:
    data = alphabet.read_bytes()
    path = tmp_path / "m.gguf"
    path.write_bytes(data.replace(b"Alphabet", b"Al\xffha\xc3et"))
    done = run("inspect", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("inspect", path, "--json", "--metadata").returncode == 0
    assert all(runs for runs, _ in answers(path).values())


def test_a_token_that_is_not_utf_8_is_said_byte_for_byte(tmp_path: Path) -> None:
    pieces = [("<", -1.0), ("QQQ", -2.0), ("a", -3.0), ("▁", -5.0)]
    path = write_pieces_vocabulary(tmp_path / "v.gguf", pieces)
    path.write_bytes(path.read_bytes().replace(b"QQQ", b"\xc3\xff\xfe"))
    with GGUFFile.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
    odd = [id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id) == b"\xc3\xff\xfe"]
    assert len(odd) == 1
    assert odd[0] not in tokenizer.encode("a\udcc3\udcff<")


def test_a_tokenizer_without_scores_or_merges(tmp_path: Path) -> None:
    path = write_bytes_vocabulary(tmp_path / "v.gguf", merges=None)
    with GGUFFile.open(path) as file:
        assert Tokenizer.from_gguf(file).encode("ab") == [ord("a"), ord("b")]


def test_what_no_layer_uses_is_not_counted(alphabet: Path, tmp_path: Path) -> None:
    def more(values: dict[str, Any], tensors: dict[str, tuple[Any, Type]]) -> None:
        tensors["blk.0.not_used.weight"] = (np.zeros((1000, 1000), np.float32), Type.F32)

    def sizes(path: Path) -> Any:
        return json.loads(run("inspect", path, "--json").stdout)["sizes"]

    path = rewrite(alphabet, tmp_path / "m.gguf", more)
    assert sizes(path) == sizes(alphabet)
    plans = [json.loads(run("plan", p, "--json").stdout) for p in (path, alphabet)]
    assert plans[0]["dense_bytes"] == plans[1]["dense_bytes"]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.gguf")), ids=lambda path: path.stem)
def test_an_outline_asks_for_all_that_a_model_is_made_of(path: Path) -> None:
    with GGUFFile.open(path) as file:
        assert used_names(file) <= set(file.tensors)
        used = {info.name for info in used_tensors(file)}  # not of layers that predict further
        unused = used - used_names(file)
        # Of long contexts; and of layers that go by another's index, and may have one of their own.
        assert not [name for name in unused if not re.search("rope_factors|indexer", name)]
