"""Golden models of Kimi K3: Kimi Linear whose branches read of the stream at earlier layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import TensorSpec
from golden.kimi import BLOCKS, GoldenKimi
from golden.recipe import HEADS

UNQUANTISED = ("res_score", "ssm_f", "ssm_beta", "attn_kv_a_mqa", "attn_k_b", "attn_v_b")
"""What llama.cpp's quantiser leaves as it is, and would not write as F32 either."""


@dataclass(frozen=True, slots=True)
class KimiK3(GoldenKimi):
    """Each `bank`-th layer banks the stream; experts work in `latent` numbers."""

    rank: int = 16
    bank: int = 2
    latent: int = 24
    unquantised: tuple[str, ...] = UNQUANTISED

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        GoldenKimi.metadata(self, writer)
        writer.add_float32(f"{self.arch}.kda.gate_lower_bound", -5.0)
        writer.add_uint32(f"{self.arch}.expert_latent_length", self.latent)
        writer.add_uint32(f"{self.arch}.attn_res.block_size", self.bank)
        writer.add_float32(f"{self.arch}.activation.situ_beta", 1.5)
        writer.add_float32(f"{self.arch}.activation.situ_linear_beta", 0.75)

    def outside(self) -> Iterator[TensorSpec]:
        """Tensors of no layer; what is read of all rows makes logits large enough as it is."""
        for name, shape, std in GoldenKimi.outside(self):
            yield name, shape, std / 1.5 if name == "output.weight" else std
        yield "output_res_score.weight", (self.hidden,), self.hidden**-0.5

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """What Kimi Linear has, and what is about it."""
        yield from (
            (f"{branch}_res_score.weight", (self.hidden,), self.hidden**-0.5)
            for branch in ("attn", "ffn")
        )
        for name, shape, std in GoldenKimi.parts(self, layer):
            if name == "ssm_g_a.weight":
                yield "ssm_g.weight", (HEADS * self.dim, self.hidden), std
            elif name != "ssm_g_b.weight":
                yield name, self._shape(name, shape), std
        if self.kinds[layer] == "A":
            values = HEADS * self.value
            yield "attn_gate.weight", (values, self.hidden), self.hidden**-0.5
        if layer:
            yield "ffn_routed_down.weight", (self.latent, self.hidden), self.hidden**-0.5
            yield "ffn_routed_norm.weight", (self.latent,), 0.3
            yield "ffn_routed_up.weight", (self.hidden, self.latent), self.latent**-0.5

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Rates of decay are no matrix here, and experts are narrow."""
        if name == "ssm_a":
            return (HEADS,)
        if name.endswith("_exps.weight"):
            return tuple(self.latent if size == self.hidden else size for size in shape)
        return shape


WHOLE = BLOCKS | {"rank": 32, "latent": 32}
KIMI_K3_MODELS: tuple[KimiK3, ...] = (
    KimiK3("kimi-k3", "kimi-k3", 821, kinds="KAKAKA"),
    KimiK3("kimi-k3-q8_0", "kimi-k3", 822, ("Q8_0",), kinds="KKA", **WHOLE),
)
