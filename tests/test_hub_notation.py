import pytest

from moestream.errors import ModelNotFoundError
from moestream.hub import HubReference, ModelFiles, choose, group_shards, parse_reference

NAMES = [
    "README.md",
    "imatrix_unsloth.gguf",
    "mmproj-F16.gguf",
    "MTP/mtp-model.gguf",
    "Model-Q4_K_M.gguf",
    "Model-UD-Q4_K_XL.gguf",
    "Model-UD-Q2_K_XL.gguf",
    "Model.IQ4_XS.gguf",
    "model-mxfp4.gguf",
    "BF16/Model-BF16-00002-of-00002.gguf",
    "BF16/Model-BF16-00001-of-00002.gguf",
    "Model-Q8_0-00001-of-00003.gguf",
    "Model-Q8_0-00003-of-00003.gguf",
]


@pytest.mark.parametrize(
    ("text", "repository", "what"),
    [
        ("hf:org/model", "org/model", None),
        ("org/model:Q4_K_M", "org/model", "Q4_K_M"),
        ("hf:o-r.g/M_1.5:sub/Model-Q8_0.gguf", "o-r.g/M_1.5", "sub/Model-Q8_0.gguf"),
    ],
)
def test_references(text: str, repository: str, what: str | None) -> None:
    assert parse_reference(text) == HubReference(repository, what)


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:model", "hf:a/b/c", "hf:a/b:", "hf:../b", "hf:a/..", "hf:a/b:../x.gguf", "hf:/a/b"],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ModelNotFoundError, match="names nothing on the hub; expected hf:ORG/REPO"):
        parse_reference(text)


def test_models_among_the_files() -> None:
    assert {model.quant: model.names for model in group_shards(NAMES)} == {
        "Q4_K_M": ("Model-Q4_K_M.gguf",),
        "UD-Q4_K_XL": ("Model-UD-Q4_K_XL.gguf",),
        "UD-Q2_K_XL": ("Model-UD-Q2_K_XL.gguf",),
        "IQ4_XS": ("Model.IQ4_XS.gguf",),
        "MXFP4": ("model-mxfp4.gguf",),
        "BF16": ("BF16/Model-BF16-00001-of-00002.gguf", "BF16/Model-BF16-00002-of-00002.gguf"),
    }


@pytest.mark.parametrize(
    ("what", "first"),
    [
        (None, "Model-Q4_K_M.gguf"),
        ("q4_k_m", "Model-Q4_K_M.gguf"),
        ("UD-Q4_K_XL", "Model-UD-Q4_K_XL.gguf"),
        ("Q2_K_XL", "Model-UD-Q2_K_XL.gguf"),
        ("BF16", "BF16/Model-BF16-00001-of-00002.gguf"),
        ("Model-BF16-00002-of-00002.gguf", "BF16/Model-BF16-00001-of-00002.gguf"),
        ("model-mxfp4.gguf", "model-mxfp4.gguf"),
    ],
)
def test_the_model_that_is_meant(what: str | None, first: str) -> None:
    model = choose(HubReference("org/model", what), group_shards(NAMES), "org/model")
    assert model.names[0] == first


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("Q3_K_S", "has no Q3_K_S; it has IQ4_XS, MXFP4|has no Q3_K_S; it has Q4_K_M"),
        ("Q8_0", "has no Q8_0"),  # a shard is missing
        ("other.gguf", r"has no other\.gguf"),
    ],
)
def test_what_a_repository_has_not(what: str, complaint: str) -> None:
    with pytest.raises(ModelNotFoundError, match=complaint):
        choose(HubReference("org/model", what), group_shards(NAMES), "org/model")


def test_the_only_model_needs_no_name() -> None:
    only = [ModelFiles("Q8_0", ("a-Q8_0.gguf",))]
    assert choose(HubReference("org/model"), only, "org/model") is only[0]


def test_several_that_fit_are_named() -> None:
    names = ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"]
    with pytest.raises(ModelNotFoundError, match=r"several Q4_K_M.*a-Q4_K_M\.gguf, b-Q4_K_M\.gguf"):
        choose(HubReference("org/model"), group_shards(names), "org/model")


def test_a_repository_without_models() -> None:
    with pytest.raises(ModelNotFoundError, match="has no GGUF model"):
        choose(HubReference("org/model"), group_shards(["config.json"]), "org/model")
