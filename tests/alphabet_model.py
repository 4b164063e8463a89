"""A model whose answers are known: a real mixture of experts that recites the alphabet.

Embedding and output are a table of what follows what; attention and experts add exact zeros. The
vocabulary is the 256 bytes and ChatML's three tokens, so a turn that ends in a new line is answered
with ``ALPHABET`` and the end token; digits follow each other for ever, and ``#`` begins a new line.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

ALPHABET = "abcdefghijklmnopqrstuvwxyzè"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 1 << 20
EMBEDDING = 264
HEADS = 2
EXPERTS = 4
FFN = 32
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END = 256 + SPECIALS.index("<|im_end|>")


def byte_tokens() -> list[str]:
    """GPT-2's letters for the 256 bytes, by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def successors() -> dict[int, int]:
    follows = dict(pairwise(f"\n{ALPHABET}".encode()))
    follows[ALPHABET.encode()[-1]] = END
    follows[ord("#")] = ord("\n")
    return follows | {ord("0") + n: ord("0") + (n + 1) % 10 for n in range(10)}


def write_alphabet_model(
    path: Path,
    *,
    architecture: str = "llama",
    chat: bool = True,
    context: int = CONTEXT,
    head_dim: int = EMBEDDING // HEADS,
    broken_at: str | None = None,
    follows: Mapping[str, str] | None = None,
    advice: Mapping[str, float | str] | None = None,
    template: str = TEMPLATE,
    layers: int = 1,
) -> Path:
    """Write the model; without ``chat`` it has neither a template nor ChatML's tokens.

    One that is ``broken_at`` a letter computes NaN once it has seen that; ``follows`` are changes
    of what follows what; ``advice`` is what its file says of sampling.
    """
    specials = SPECIALS if chat else ["<s>", "<x>", "</s>"]
    tokens = [*byte_tokens(), *specials, "Ġt"]
    writer = GGUFWriter(path, architecture)
    writer.add_name("Alphabet")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 3 + [TokenType.NORMAL])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    if chat:
        writer.add_chat_template(template)
    for key, value in (advice or {}).items():
        add = {int: writer.add_int32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"general.sampling.{key}", value)
    changes = {ord(a): ord(b) for a, b in (follows or {}).items()}
    _add_tensors(writer, len(tokens), head_dim, broken_at, changes, layers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensors(
    writer: GGUFWriter,
    vocab_size: int,
    head_dim: int,
    broken_at: str | None,
    changes: Mapping[int, int],
    layers: int,
) -> None:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    output, follows = zeros(vocab_size, EMBEDDING), successors() | dict(changes)
    for token in range(vocab_size):
        output[follows.get(token, END), token] = 1
    tensors = {
        "token_embd": np.eye(vocab_size, EMBEDDING, dtype=np.float32),
        "output": output,
        "output_norm": np.ones(EMBEDDING, np.float32),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm": np.ones(EMBEDDING, np.float32),
            f"blk.{layer}.attn_q": zeros(HEADS * head_dim, EMBEDDING),
            f"blk.{layer}.attn_k": zeros(head_dim, EMBEDDING),
            f"blk.{layer}.attn_v": zeros(head_dim, EMBEDDING),
            f"blk.{layer}.attn_output": zeros(EMBEDDING, HEADS * head_dim),
            f"blk.{layer}.ffn_norm": np.ones(EMBEDDING, np.float32),
            f"blk.{layer}.ffn_gate_inp": zeros(EXPERTS, EMBEDDING),
            f"blk.{layer}.ffn_gate_exps": zeros(EXPERTS, FFN, EMBEDDING),
            f"blk.{layer}.ffn_up_exps": zeros(EXPERTS, FFN, EMBEDDING),
            f"blk.{layer}.ffn_down_exps": zeros(EXPERTS, EMBEDDING, FFN),
        }
    if broken_at is not None:
        tensors["token_embd"][ord(broken_at)] = np.nan
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values)
