"""A mixture in each type of weights, written when needed, against llama.cpp's logits of it.

Needs llama-cpp-python; files of rows of 256 are too large to be committed for each type.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from golden.files import CONTEXT, tokens, write_model
from golden.models import WIDE, GoldenModel
from moestream.engine.engine import Engine
from oracle.libllama import LlamaCpp, write_f32_copy
from oracle.logit_stats import kl_divergence, log_softmax

TYPES = (
    *("IQ2_XXS", "IQ3_XXS", "IQ2_XS", "IQ2_S", "IQ3_S", "IQ1_S", "IQ1_M"),
    *("TQ1_0", "TQ2_0", "NVFP4", "Q1_0"),
)


@pytest.mark.parametrize("type", TYPES)
def test_logits_are_those_of_llama_cpp(type: str, tmp_path: Path) -> None:
    model = GoldenModel(f"mixtral-{type}", "llama", 109, (type,), layers=1, experts=3, **WIDE)
    path, copy = write_model(model, tmp_path), tmp_path / "f32.gguf"
    write_f32_copy(path, copy)
    with LlamaCpp(copy, n_ctx=CONTEXT) as oracle:
        theirs = oracle.logits(tokens())
    with Engine.open(
        path, backend="cpu", cache_type_k="f32", cache_type_v="f32", context_length=CONTEXT
    ) as engine:
        ours = engine.session().forward(tokens())
    kl = kl_divergence(log_softmax(theirs), log_softmax(ours))
    # Of a token or two, the rounding of activations may choose another expert.
    assert np.median(kl) < 5e-3
    assert kl.mean() < 5e-2
