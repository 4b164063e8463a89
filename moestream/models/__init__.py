"""Architectures: one small file each, holding only what differs from ``decoder``."""

from dataclasses import replace
from typing import cast

from moestream.backends import Backend
from moestream.errors import UnsupportedModelError
from moestream.gguf import GGUFFile, GGUFHeader
from moestream.models.afmoe import AFMoE
from moestream.models.arctic import Arctic
from moestream.models.bailingmoe import BailingMoE
from moestream.models.bailingmoe2 import BailingMoE2
from moestream.models.bailingmoe3 import BailingMoE3
from moestream.models.cohere2moe import Cohere2MoE
from moestream.models.config import ModelConfig
from moestream.models.dbrx import DBRX
from moestream.models.decoder import Decoder
from moestream.models.deepseek import DeepSeek
from moestream.models.deepseek2 import DeepSeek2
from moestream.models.deepseek4 import DeepSeek4
from moestream.models.deepseek32 import DeepSeek32
from moestream.models.dots1 import Dots1
from moestream.models.dots3note import Dots3Note
from moestream.models.ernie4_5_moe import Ernie45MoE
from moestream.models.exaone_moe import ExaoneMoE
from moestream.models.gemma4 import Gemma4
from moestream.models.glm4moe import GLM4MoE
from moestream.models.glm5_next import GLM5Next
from moestream.models.glm_dsa import GLMDSA
from moestream.models.gpt_oss import GptOss
from moestream.models.granite_swa import GraniteSWA
from moestream.models.granitehybrid import GraniteHybrid
from moestream.models.granitemoe import GraniteMoE
from moestream.models.grok import Grok
from moestream.models.grovemoe import GroveMoE
from moestream.models.hunyuan_moe import HunyuanMoE
from moestream.models.hy_v3 import HyV3
from moestream.models.hy_v4 import HyV4
from moestream.models.jamba import Jamba
from moestream.models.keys import Keys
from moestream.models.kimi_k3 import KimiK3
from moestream.models.kimi_linear import KimiLinear
from moestream.models.laguna import Laguna
from moestream.models.lfm2moe import LFM2MoE
from moestream.models.llama import Llama
from moestream.models.llama4 import Llama4
from moestream.models.maple import Maple
from moestream.models.mellum import Mellum
from moestream.models.mimo2 import MiMo2
from moestream.models.minimax_01 import MiniMax01
from moestream.models.minimax_m2 import MiniMaxM2
from moestream.models.minimax_m3 import MiniMaxM3
from moestream.models.mistral4 import Mistral4
from moestream.models.nemotron_h_moe import NemotronHMoE
from moestream.models.olmoe import OLMoE
from moestream.models.outline import Outliner, Outlines
from moestream.models.phimoe import PhiMoE
from moestream.models.qwen2moe import Qwen2MoE
from moestream.models.qwen3moe import Qwen3MoE
from moestream.models.qwen3next import Qwen3Next
from moestream.models.qwen3vlmoe import Qwen3VLMoE
from moestream.models.qwen4exp import Qwen4Exp
from moestream.models.qwen35moe import Qwen35MoE
from moestream.models.smallthinker import SmallThinker
from moestream.models.step35 import Step35

ARCHITECTURES: dict[str, type[Decoder]] = {
    "llama": Llama,
    "olmoe": OLMoE,
    "qwen2moe": Qwen2MoE,
    "qwen3moe": Qwen3MoE,
    "gpt-oss": GptOss,
    "granitemoe": GraniteMoE,
    "hunyuan-moe": HunyuanMoE,
    "minimax-m2": MiniMaxM2,
    "gemma4": Gemma4,
    "phimoe": PhiMoE,
    "ernie4_5-moe": Ernie45MoE,
    "qwen3next": Qwen3Next,
    "qwen35moe": Qwen35MoE,
    "lfm2moe": LFM2MoE,
    "deepseek2": DeepSeek2,
    "glm4moe": GLM4MoE,
    "bailingmoe2": BailingMoE2,
    "qwen3vlmoe": Qwen3VLMoE,
    "bailingmoe": BailingMoE,
    "deepseek": DeepSeek,
    "dots1": Dots1,
    "hy_v3": HyV3,
    "dots3note": Dots3Note,
    "deepseek32": DeepSeek32,
    "glm-dsa": GLMDSA,
    "hy_v4": HyV4,
    "grok": Grok,
    "jamba": Jamba,
    "minimax-01": MiniMax01,
    "bailingmoe3": BailingMoE3,
    "kimi-linear": KimiLinear,
    "granitehybrid": GraniteHybrid,
    "nemotron_h_moe": NemotronHMoE,
    "arctic": Arctic,
    "dbrx": DBRX,
    "granite_swa": GraniteSWA,
    "llama4": Llama4,
    "mistral4": Mistral4,
    "afmoe": AFMoE,
    "cohere2moe": Cohere2MoE,
    "exaone-moe": ExaoneMoE,
    "laguna": Laguna,
    "maple": Maple,
    "mellum": Mellum,
    "mimo2": MiMo2,
    "smallthinker": SmallThinker,
    "step35": Step35,
    "qwen4exp": Qwen4Exp,
    "glm5-next": GLM5Next,
    "deepseek4": DeepSeek4,
    "grovemoe": GroveMoE,
    "kimi-k3": KimiK3,
    "minimax-m3": MiniMaxM3,
}
"""GGUF's ``general.architecture`` to the class that runs it."""

__all__ = ["ARCHITECTURES", "Decoder", "ModelConfig", "load_model", "read_config"]


def read_config(file: GGUFHeader) -> ModelConfig:
    """Read the dimensions of the model that the file describes, from its header alone.

    Raises:
        UnsupportedModelError: an architecture that is not in ``ARCHITECTURES``, or a value in the
            metadata that asks for what we lack.
        ModelFormatError: metadata that is missing or makes no sense.
    """
    return _architecture(file).read_config(Keys(file))


def load_model(
    file: GGUFFile, backend: Backend, context_length: int = 0, part: range | None = None
) -> Decoder:
    """Build the model that the file describes, for sessions of up to ``context_length`` tokens.

    Without it, for as many as the model was made for. Of a ``part``, other layers have no weights,
    and where it does not begin with the first, nor have the embedding and the output.

    Raises:
        UnsupportedModelError: see ``read_config``.
        ModelFormatError: metadata or tensors that do not fit together.
    """
    config = replace(read_config(file), part=part)
    architecture = _architecture(file)
    return architecture(file, config, backend, context_length or config.context_length)


def used_names(file: GGUFHeader, context_length: int = 0) -> set[str]:
    """Make sure that ``load_model`` would build a model of the file, and say of which tensors.

    Takes no weights and hardly any time.

    Raises:
        UnsupportedModelError, UnsupportedQuantError, ModelFormatError: it would not; see there.
    """
    config = read_config(file)
    outlines = Outlines(file)
    _architecture(file)(
        cast(GGUFFile, outlines),
        config,
        cast(Backend, Outliner()),
        context_length or config.context_length,
    )
    return outlines.used


def _architecture(file: GGUFHeader) -> type[Decoder]:
    name = file.get("general.architecture", str)
    if name not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"{file.path}: architecture {name!r} is not supported; supported are: {supported}"
        )
    return ARCHITECTURES[name]
