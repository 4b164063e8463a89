"""Architectures: one small file each, holding only what differs from ``decoder``."""

from moestream.backends import Backend
from moestream.errors import UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.models.bailingmoe2 import BailingMoE2
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.deepseek2 import DeepSeek2
from moestream.models.glm4moe import GLM4MoE
from moestream.models.gpt_oss import GptOss
from moestream.models.granitemoe import GraniteMoE
from moestream.models.hunyuan_moe import HunyuanMoE
from moestream.models.keys import Keys
from moestream.models.llama import Llama
from moestream.models.minimax_m2 import MiniMaxM2
from moestream.models.olmoe import OLMoE
from moestream.models.qwen2moe import Qwen2MoE
from moestream.models.qwen3moe import Qwen3MoE

ARCHITECTURES: dict[str, type[Decoder]] = {
    "llama": Llama,
    "olmoe": OLMoE,
    "qwen2moe": Qwen2MoE,
    "qwen3moe": Qwen3MoE,
    "gpt-oss": GptOss,
    "granitemoe": GraniteMoE,
    "hunyuan-moe": HunyuanMoE,
    "minimax-m2": MiniMaxM2,
    "deepseek2": DeepSeek2,
    "glm4moe": GLM4MoE,
    "bailingmoe2": BailingMoE2,
}
"""GGUF's ``general.architecture`` to the class that runs it."""

__all__ = ["ARCHITECTURES", "Decoder", "ModelConfig", "load_model", "read_config"]


def read_config(file: GGUFFile) -> ModelConfig:
    """Read the dimensions of the model that the file describes, from its header alone.

    Raises:
        UnsupportedModelError: an architecture that is not in ``ARCHITECTURES``, or a value in the
            metadata that asks for what we lack.
        ModelFormatError: metadata that is missing or makes no sense.
    """
    return _architecture(file).read_config(Keys(file))


def load_model(file: GGUFFile, backend: Backend) -> Decoder:
    """Build the model that the file describes.

    Raises:
        UnsupportedModelError: see ``read_config``.
        ModelFormatError: metadata or tensors that do not fit together.
    """
    return _architecture(file)(file, read_config(file), backend)


def _architecture(file: GGUFFile) -> type[Decoder]:
    name = file.get("general.architecture", str)
    if name not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"{file.path}: architecture {name!r} is not supported; supported are: {supported}"
        )
    return ARCHITECTURES[name]
