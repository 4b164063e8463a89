"""Golden models of LFM2-MoE: short convolutions, one layer that attends, leading dense layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, Model, TensorSpec, swiglu

HIDDEN, HEADS, KV_HEADS, EXPERTS, CONV = 64, 4, 2, 8, 3
DENSE_LAYERS = 1


@dataclass(frozen=True, slots=True)
class GoldenConvolved:
    """A dense layer that convolves, then experts: one attends, one convolves."""

    name: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    width: int = 16
    arch: str = "lfm2moe"
    layers: int = 3
    experts: int = EXPERTS

    @property
    def moe_layers(self) -> list[int]:
        """All but the first."""
        return list(range(DENSE_LAYERS, self.layers))

    @property
    def attends(self) -> list[bool]:
        """Layer by layer."""
        return [layer == 1 for layer in range(self.layers)]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(3 * self.width)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv([KV_HEADS if attends else 0 for attends in self.attends])
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_freq_base(1000.0)
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_leading_dense_block_count(DENSE_LAYERS)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_shortconv_l_cache(CONV)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield "token_embd.weight", (VOCAB, HIDDEN), 0.2
        yield "token_embd_norm.weight", (HIDDEN,), 0.3
        for layer, attends in enumerate(self.attends):
            mixer = _attention() if attends else _convolution()
            ffn = self._experts() if layer in self.moe_layers else swiglu(HIDDEN, 3 * self.width)
            for name, shape, std in (*mixer, ("ffn_norm.weight", (HIDDEN,), 0.3), *ffn):
                yield f"blk.{layer}.{name}", shape, std

    def _experts(self) -> Iterator[TensorSpec]:
        yield "ffn_gate_inp.weight", (EXPERTS, HIDDEN), HIDDEN**-0.5
        yield "exp_probs_b.bias", (EXPERTS,), 0.06
        yield from swiglu(HIDDEN, self.width, "_exps", EXPERTS)


def _attention() -> Iterator[TensorSpec]:
    head = HIDDEN // HEADS
    yield "attn_norm.weight", (HIDDEN,), 0.3
    for name, rows in (("q", HIDDEN), ("k", KV_HEADS * head), ("v", KV_HEADS * head)):
        yield f"attn_{name}.weight", (rows, HIDDEN), 0.8 * HIDDEN**-0.5
    yield "attn_q_norm.weight", (head,), 0.3
    yield "attn_k_norm.weight", (head,), 0.3
    yield "attn_output.weight", (HIDDEN, HIDDEN), HIDDEN**-0.5


def _convolution() -> Iterator[TensorSpec]:
    yield "attn_norm.weight", (HIDDEN,), 0.3
    yield "shortconv.conv.weight", (HIDDEN, CONV), 0.7
    yield "shortconv.in_proj.weight", (3 * HIDDEN, HIDDEN), 0.7 * HIDDEN**-0.5
    yield "shortconv.out_proj.weight", (HIDDEN, HIDDEN), HIDDEN**-0.5


LFM2MOE_MODELS: tuple[Model, ...] = (
    GoldenConvolved("lfm2moe", 211),
    GoldenConvolved("lfm2moe-q8_0", 218, ("Q8_0", "Q5_0"), width=32),
)
