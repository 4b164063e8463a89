"""What a stored block is called: a hash of the model, of how it is stored, and of all its tokens.

Two blocks of one name have the same bytes: everything that decides them is in it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from moestream import __version__
from moestream.backends import BLOCK_POSITIONS
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.profiles.fingerprint import directory_hash

_FORMAT = 1
_SAMPLES = 64
_SAMPLE_BYTES = 4096


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
        "weights": _sampled(engine.file),
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


def _sampled(file: GGUFFile) -> str:
    """A hash of some bytes of some tensors: models of one shape differ in every tensor."""
    names = sorted(file.tensors)
    digest = hashlib.sha256()
    for name in names[:: max(len(names) // _SAMPLES, 1)]:
        data = file.tensor(name).data.reshape(-1)
        digest.update(data[:_SAMPLE_BYTES].tobytes())
    return digest.hexdigest()
