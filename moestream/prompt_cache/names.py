"""What a stored block is called: a hash of the model, of how it is stored, and of all its tokens.

Everything that decides a block's bytes is in its name. Weights are, by what their files are: to
look at all of them would take as long as to read a prompt. A copy of a model is another model.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moestream import __version__
from moestream.backends import BLOCK_POSITIONS
from moestream.engine.engine import Engine
from moestream.profiles.fingerprint import directory_hash

_FORMAT = 1


def model_name(engine: Engine) -> str:
    """What tells this model, and the way its caches are computed and stored, from all others."""
    config = engine.config
    said = {
        "format": _FORMAT,
        "version": __version__,  # whose arithmetic it is
        "backend": engine.backend.name,
        "kv_types": engine.kv_types,
        "context": engine.context_length,  # which the rotation of some models depends on
        "shapes": [repr(shape) for shape in config.state_shapes()],
        "metadata": {
            key: repr(value) for key, value in engine.file.metadata.items() if "token" not in key
        },
        "tensors": directory_hash(engine.file),
        "files": [
            (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
            for status in engine.file.statuses
        ],
        "program": _program(engine),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def block_names(model: str, tokens: Sequence[int]) -> Iterator[str]:
    """Names of the whole blocks that tokens begin with, in order."""
    ids = np.asarray(tokens, np.int32)
    name = model
    for start in range(0, len(ids) - BLOCK_POSITIONS + 1, BLOCK_POSITIONS):
        block = ids[start : start + BLOCK_POSITIONS]
        name = hashlib.sha256(name.encode() + block.tobytes()).hexdigest()
        yield name


def _program(engine: Engine) -> str:
    """What computes: of two builds of one version, one may round otherwise."""
    if engine.backend.name != "cpu":
        return ""
    from moestream import _native

    return hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()
