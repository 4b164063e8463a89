import json
from pathlib import Path

import pytest
from alphabet_model import CONTEXT, END, write_alphabet_model
from command_line import run
from gguf import GGUFWriter, LlamaFileType

from moestream.models import ARCHITECTURES

DENSE_PARAMETERS = 2 * 260 * 264 + 3 * 264 + 2 * 264 * 264 + 2 * 132 * 264 + 4 * 264
EXPERT_PARAMETERS = 3 * 32 * 264


def inspect(*arguments: object) -> dict[str, object]:
    done = run("inspect", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A file without tensors, of an architecture that nobody supports, with odd metadata."""
    writer = GGUFWriter(tmp_path / "vocabulary.gguf", "nonesuch")
    writer.add_name("evil \x1b[31m name")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_head_count([4, 0, 8])
    writer.add_string("nonesuch.block_count", "three")
    writer.add_float32("nonesuch.limit", float("inf"))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{n}" for n in range(1000)])
    writer.add_eos_token_id(2000)
    writer.add_chat_template("x" * 500)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return tmp_path / "vocabulary.gguf"


def test_json_tells_what_a_mixture_is(alphabet: Path) -> None:
    value = inspect(alphabet)
    assert value["path"] == str(alphabet)
    assert value["file_bytes"] == alphabet.stat().st_size
    assert value["shards"] == ["alphabet.gguf"]
    assert (value["gguf_version"], value["name"]) == (3, "Alphabet")
    assert (value["architecture"], value["supported"]) == ("llama", True)
    assert value["unsupported_reason"] is None
    assert value["sizes"] == {
        "dense_bytes": 4 * DENSE_PARAMETERS,
        "table_bytes": 0,
        "expert_bytes": 4 * 4 * EXPERT_PARAMETERS,
        "expert_bytes_per_token": 2 * 4 * EXPERT_PARAMETERS,
        "parameters": DENSE_PARAMETERS + 4 * EXPERT_PARAMETERS,
        "active_parameters": DENSE_PARAMETERS + 2 * EXPERT_PARAMETERS,
    }
    assert value["shape"] == {
        "num_layers": 1,
        "num_moe_layers": 1,
        "hidden_size": 264,
        "num_heads": 2,
        "num_kv_heads": 1,
        "context_length": CONTEXT,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    assert value["tokenizer"] == {
        "model": "gpt2",
        "pre": "gpt-2",
        "vocab_size": 260,
        "special_ids": {"bos": 256, "eos": END},
        "chat_template": True,
    }


def test_json_sums_up_quantisation_types() -> None:
    golden = Path(__file__).parent / "data" / "golden"
    value = inspect(golden / "mixtral-q8_0.gguf", "--tensors")
    tensors, totals = value["tensors"], value["quantisation"]
    assert isinstance(tensors, list)
    assert isinstance(totals, list)
    assert {total["type"] for total in totals} >= {"Q8_0", "F32"}
    for total in totals:
        listed = [tensor for tensor in tensors if tensor["type"] == total["type"]]
        assert total["tensors"] == len(listed)
        assert total["bytes"] == sum(tensor["bytes"] for tensor in listed)
    assert [total["bytes"] for total in totals] == sorted(
        (total["bytes"] for total in totals), reverse=True
    )
    assert tensors[0].keys() == {"name", "type", "shape", "bytes", "offset", "shard"}


def test_text_tells_the_same(alphabet: Path) -> None:
    lines = run("inspect", alphabet, "--tensors", "--metadata").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "model",
        "size",
        "shape",
        "tokenizer",
        "quantisation",
        "tensors",
        "metadata",
    ]
    words = [line.split() for line in lines]
    assert ["supported", "yes"] in words
    assert ["experts", "a", "token", "198", "KiB"] in words
    assert ["experts", "4,", "2", "a", "token"] in words
    assert ["pre", "gpt-2"] in words
    assert ["F32", "13", "450K", "1.72", "MiB", "32.00"] in words
    assert any(
        w[:7] == ["blk.0.ffn_down_exps.weight", "F32", "4", "x", "264", "x", "32"] for w in words
    )
    assert ["llama.expert_used_count", "2"] in words
    assert any(w[0] == "tokenizer.ggml.tokens" and w[-2:] == ["260", "items]"] for w in words if w)


def test_a_vocabulary_of_an_unknown_architecture_can_be_looked_at(vocabulary: Path) -> None:
    value = inspect(vocabulary, "--metadata")
    assert value["supported"] is False
    assert value["unsupported_reason"] == "no tensors: a vocabulary only"
    assert value["file_type"] == "Q4_K_M"
    assert isinstance(value["shape"], dict)
    assert value["shape"]["num_heads"] == [4, 0, 8]
    assert value["shape"]["num_layers"] is None
    metadata = value["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["nonesuch.limit"] == "inf"
    assert metadata["tokenizer.chat_template"] == "x" * 500
    assert metadata["tokenizer.ggml.tokens"] == {
        "length": 1000,
        "first": [f"token{n}" for n in range(6)],
    }
    text = run("inspect", vocabulary, "--metadata").stdout
    assert "0 to 8, by layer" in text
    assert "special ids    eos 2000\n" in text
    assert "evil \\x1b[31m name" in text
    assert "\x1b" not in text
    assert "x... 500 characters" in text


def test_an_unsupported_architecture_says_so(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "model.gguf", architecture="mamba")
    assert inspect(path)["unsupported_reason"] == (
        f"architecture 'mamba'; supported are {', '.join(ARCHITECTURES)}"
    )
