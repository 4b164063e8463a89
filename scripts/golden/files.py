"""How the tiny random models of tests/data/golden are drawn and written.

Owns the random numbers and the files: weights come from the raw output of PCG64 and exact
arithmetic, the same bytes on every machine. Which tensors and keys a model has is told by the
models themselves, in the other files here. Knows nothing of llama.cpp nor of moestream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

from golden.quants import encode

VOCAB = 128
EPSILON = 0.02  # large enough to matter beside activations of about one
CONTEXT = 128
TOKEN_COUNT = 64

TensorSpec = tuple[str, tuple[int, ...], float]
"""Name, shape slowest first, standard deviation."""


class Model(Protocol):
    """A golden model: what it is called, and what is in its file."""

    @property
    def name(self) -> str:
        """Of its files."""

    @property
    def arch(self) -> str:
        """GGUF's name of the architecture."""

    @property
    def seed(self) -> int:
        """Of its weights."""

    @property
    def types(self) -> tuple[str, ...]:
        """Given to its matrices in turn; vectors and routers stay F32."""

    @property
    def layers(self) -> int:
        """How many."""

    @property
    def experts(self) -> int:
        """Routed experts a layer, 0 for a dense model."""

    @property
    def moe_layers(self) -> list[int]:
        """Layers with experts."""

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys of its architecture, the number of layers among them."""

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""


def is_f32(model: Model) -> bool:
    """Whether every weight is F32, so that llama.cpp rounds no activation either."""
    return model.types == ("F32",)


Weight = tuple[str, NDArray[np.generic], gguf.GGMLQuantizationType]


class Random:
    """Uniform numbers from the raw 64-bit output of PCG64, which NumPy promises not to change."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def bytes(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Draw bytes, all values alike."""
        count = int(np.prod(shape))
        return self._raw((count + 7) // 8).view(np.uint8)[:count].reshape(shape)

    def uniform(self, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
        """Draw from a uniform distribution around zero with the standard deviation `std`."""
        signed = (self._raw(int(np.prod(shape))) >> np.uint64(40)).astype(np.float32)
        unit = signed / np.float32(2**23) - np.float32(1)  # exact: 24 bits
        return (unit * np.float32(std * 3**0.5)).reshape(shape)

    def _raw(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype="<u8")


def tokens(count: int = TOKEN_COUNT) -> list[int]:
    """Return the token ids that every model is run on, or of a longer text that begins so."""
    return [int(x) % VOCAB for x in Random(0).bytes((count,))]


def write_model(model: Model, folder: Path) -> Path:
    """Write `model` as a GGUF file in `folder` and return its path."""
    path = folder / f"{model.name}.gguf"
    write_gguf(path, model, weights(model))
    return path


def write_gguf(path: Path, model: Model, tensors: Iterable[Weight]) -> None:
    """Write a GGUF file with the metadata of `model` and the given tensors."""
    writer = gguf.GGUFWriter(path, model.arch)
    writer.add_name(f"moestream golden {model.name}")
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    writer.add_context_length(CONTEXT)
    model.metadata(writer)
    for name, data, qtype in tensors:
        writer.add_tensor(name, data, raw_dtype=qtype)
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all that was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_value(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """Add metadata as it was read from another file; what has no type here is left out."""
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)


def weights(model: Model) -> Iterator[Weight]:
    """Yield name, encoded data and type of every tensor."""
    random = Random(model.seed)
    types = cycle(model.types)
    for name, shape, std in model.tensors():
        if name.endswith("tid2eid.weight"):  # ids, each once a token, below what stands for std
            drawn = random.bytes((shape[0], int(std)))
            ids = np.argsort(drawn, axis=1, kind="stable")[:, : shape[1]].astype(np.int32)
            yield name, ids, gguf.GGMLQuantizationType.I32
            continue
        values = random.uniform(shape, std)
        values += np.float32(_mean(model, name))
        if name.endswith("ssm_a"):  # rates of decay
            values = -np.abs(values)
        own = any(part in name for part in getattr(model, "unquantised", ()))
        kind = "F32" if own or _stays_f32(name, shape) else next(types)
        qtype = gguf.GGMLQuantizationType[kind]
        yield name, encode(values, qtype, random.bytes), qtype


def _mean(model: Model, name: str) -> float:
    """What only scales lies around 1.5, unless a model wants milder scores of attention."""
    if "attn_q_norm" in name:
        return getattr(model, "query_norm_mean", 1.5)
    scales = ("norm.weight", "_norm_1.weight", "_norm_2.weight", "output_scale.weight")
    return 1.5 if name.endswith(scales) or name.startswith("rope_f") else 0.0


def _stays_f32(name: str, shape: tuple[int, ...]) -> bool:
    kept = ("ffn_gate_inp", "conv", ".bias")  # by llama.cpp's own quantiser, too
    small = name.endswith(("ssm_a", "ssm_d", "ssm_norm.weight"))
    return len(shape) == 1 or small or any(part in name for part in kept)
