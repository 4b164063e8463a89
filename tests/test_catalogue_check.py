"""What models.toml says of the models that moestream has can be; what cannot be is found out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, fake_hub

from catalogue.check import differences, problems, problems_of
from moestream.catalog import ModelSpec
from moestream.catalog.entries import shipped_catalog

GOLDEN = Path(__file__).parent / "data" / "golden" / "qwen3moe.gguf"


def test_the_shipped_catalogue_can_be() -> None:
    assert list(problems(shipped_catalog().values())) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architecture": "rnd1"}, "architecture 'rnd1' does not run here"),
        ({"published": None, "licence": ""}, "says nothing of licence, published"),
        ({"size_bytes": 9_000_000_000}, "2.36 bits a parameter are not Q4_K, which has 4.50"),
        ({"source": "hf:Qwen/Qwen3-30B-A3B-GGUF:x-Q9_9.gguf"}, "names no known quantisation"),
        ({"source": "hf:Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M"}, "names no file"),
        ({"num_experts": 12}, "its experts would have 9% of its parameters"),
        ({"num_experts_per_tok": 80}, "more than all that are active"),
    ],
)
def test_what_cannot_be_is_told(changes: dict[str, Any], complaint: str) -> None:
    spec = replace(shipped_catalog()["qwen3-30b-a3b"], **changes)
    assert complaint in " ".join(problems_of(spec))


def test_experts_with_uneven_rows_may_take_more_than_their_type_says() -> None:
    spec = shipped_catalog()["nemotron-3-nano-30b-a3b"]
    assert spec.expert_parameters == 2 * (spec.hidden_size or 0) * (spec.moe_intermediate_size or 0)
    assert list(problems_of(spec)) == []
    even = replace(spec, hidden_size=2_560, moe_intermediate_size=1_792)
    assert list(problems_of(even)) == ["6.22 bits a parameter are not Q4_K, which has 4.50"]


def test_a_size_that_nobody_could_look_up_is_left_out() -> None:
    spec = replace(shipped_catalog()["qwen3-30b-a3b"], size_bytes=None)
    assert list(problems_of(spec)) == []


def test_two_models_with_one_source_are_told() -> None:
    spec = shipped_catalog()["qwen3-30b-a3b"]
    told = list(problems([spec, replace(spec, name="other")]))
    assert told == ["other: has the source of qwen3-30b-a3b"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub({"model-Q8_0.gguf": GOLDEN.read_bytes()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


def test_what_the_hub_says_otherwise_is_told(hub: FakeHub) -> None:
    spec = ModelSpec(
        "tiny",
        "hf:org/model:model-Q8_0.gguf",
        architecture="qwen3moe",
        size_bytes=len(hub.files["model-Q8_0.gguf"]),
        num_experts=7,
        hidden_size=1,
    )
    told = list(differences(spec))
    assert not [line for line in told if "size_bytes" in line or "architecture" in line]
    assert [line.partition(" ")[0] for line in told] == [
        *("num_moe_layers", "num_experts", "num_experts_per_tok", "hidden_size"),
        "moe_intermediate_size",
    ]
    wrong = replace(spec, size_bytes=5, architecture="llama")
    first, second, *_ = differences(wrong)
    assert first == f"size_bytes is {spec.size_bytes:_}, not 5"
    assert second == "architecture is qwen3moe, not llama"
