"""What no kernel computes must not depend on the processor either."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

GOLDEN = Path(__file__).parent / "data" / "golden"
MODELS = (
    *("deepseek4", "minimax-m3", "kimi-k3", "qwen4exp", "glm5-next", "laguna"),
    *("gemma4", "grok"),
)
FEATURES = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
OLDER = {"NPY_DISABLE_CPU_FEATURES": " ".join(FEATURES), "OPENBLAS_CORETYPE": "Prescott"}
"""What makes NumPy and its BLAS take other code than they choose by themselves, on x86-64."""
PROGRAM = """
import hashlib, os, sys
from pathlib import Path
from numpy._core._multiarray_umath import __cpu_features__
from moestream.engine.engine import Engine
off = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").split()
assert not any(__cpu_features__[name] for name in off), "NumPy has switched nothing off"
for path in map(Path, sys.argv[1:]):
    with Engine.open(path, backend="cpu", context_length=128, threads=1) as engine:
        logits = engine.session().forward([7 * i % 128 for i in range(100)])
    print(path.stem, hashlib.sha1(logits.tobytes()).hexdigest())
"""


def hashes(environment: dict[str, str]) -> str:
    files = [str(GOLDEN / f"{name}.gguf") for name in MODELS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not FEATURES,
    reason="NumPy has other kernels to choose from on x86-64",
)
def test_logits_do_not_depend_on_numpys_kernels() -> None:
    assert hashes(OLDER) == hashes({})
