"""The demo model against llama.cpp on text that its recipe did not see.

data/oracle/demo.npz holds the 64 likeliest tokens of each position (see the README beside it), so
the KL divergence here is that over {these 64 tokens, all others together}: a lower bound of the
full one, which scripts/oracle/compare.py measures.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from moestream.demo import demo_path
from moestream.engine.engine import Engine
from oracle.file import Oracle
from oracle.logit_stats import next_log_probs, perplexity

ORACLE = Path(__file__).parent / "data" / "oracle" / "demo.npz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not demo_path().exists(), reason=f"no demo model at {demo_path()}"),
]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle.load(ORACLE)


def run(oracle: Oracle, backend: str, windows: range) -> tuple[float, float]:
    """Mean KL divergence from the oracle, and perplexity."""
    kl, following = [], []
    length = oracle.tokens.shape[1]
    with Engine.open(
        demo_path(), backend=backend, cache_type_k="f32", cache_type_v="f32", context_length=length
    ) as engine:
        for window in windows:
            tokens = oracle.tokens[window]
            logits = engine.session().forward(tokens)
            kl.append(oracle.kl(window, logits))
            following.append(next_log_probs(logits, tokens))
    return float(np.mean(kl)), perplexity(following)


def test_reference_gives_the_same_probabilities(oracle):
    """In two windows: it takes 20 ms a token, and a fault of its own would be in each of them."""
    kl, ours = run(oracle, "reference", range(2))
    assert kl < 1e-6, f"the oracle is of the file with sha256 {oracle.model_sha256}"
    assert ours == pytest.approx(perplexity(oracle.next_log_probs[:2]), rel=1e-4)


@pytest.mark.skipif(find_spec("moestream._native") is None, reason="no native kernels here")
def test_cpu_loses_no_more_by_rounding_than_llama_cpp_does(oracle):
    assert oracle.tokens.size >= 2000
    kl, ours = run(oracle, "cpu", range(len(oracle.tokens)))
    assert kl < 1.2 * oracle.rounded_kl.mean()
    # Rounding moves a log-probability by sqrt(2 KL): a standard error of 0.3 % over the text.
    assert ours == pytest.approx(oracle.rounded_perplexity, rel=1e-2)
