"""Architectures: one small file each, holding only what differs from ``decoder``."""

from moestream.backends import Backend
from moestream.errors import UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.llama import Llama
from moestream.models.olmoe import OLMoE
from moestream.models.qwen2moe import Qwen2MoE
from moestream.models.qwen3moe import Qwen3MoE

ARCHITECTURES: dict[str, type[Decoder]] = {
    "llama": Llama,
    "olmoe": OLMoE,
    "qwen2moe": Qwen2MoE,
    "qwen3moe": Qwen3MoE,
}
"""GGUF's ``general.architecture`` to the class that runs it."""

__all__ = ["ARCHITECTURES", "Decoder", "ModelConfig", "load_model"]


def load_model(file: GGUFFile, backend: Backend) -> Decoder:
    """Build the model that the file describes.

    Raises:
        UnsupportedModelError: an architecture that is not in ``ARCHITECTURES``.
        ModelFormatError: metadata or tensors that do not fit together.
    """
    architecture = file.get("general.architecture", str)
    if architecture not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"{file.path}: architecture {architecture!r} is not supported; supported are: "
            f"{supported}"
        )
    return ARCHITECTURES[architecture](file, ModelConfig.from_gguf(file), backend)
