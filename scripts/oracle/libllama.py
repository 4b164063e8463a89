"""llama.cpp as an oracle: logits and token ids of a GGUF file, through libllama.

Owns the little that the scripts need of libllama. Uses the ctypes declarations of the package
`llama-cpp-python`, because they belong to the libllama that the package builds: no structure
layout is repeated here. `LLAMA_CPP_LIB_PATH` names the folder of another build of the *same*
version. Knows nothing of moestream; nothing in moestream or its tests imports this.

    pip install llama-cpp-python==0.3.36
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

KV_TYPES = {"f32": ll.GGML_TYPE_F32, "f16": ll.GGML_TYPE_F16}

_errors: list[str] = []


@ll.llama_log_callback
def _keep_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Collect what libllama says at its level "error" (4), and print none of the rest."""
    if level == 4:
        _errors.append(text.decode(errors="replace").strip())


ll.llama_log_set(_keep_errors, ctypes.c_void_p(0))


class LlamaCppError(RuntimeError):
    """libllama refused the model, the context or the tokens; holds what it logged."""

    def __init__(self, what: str) -> None:
        super().__init__("; ".join([what, *_errors]))
        _errors.clear()


def version() -> str:
    """Return the version of libllama, of the binding, and the CPU features that libllama uses."""
    features = ll.llama_print_system_info().decode().strip().rstrip("|").strip()
    return f"{ll.llama_version().decode()} (llama-cpp-python {ll.__version__}; {features})"


def write_f32_copy(source: str | Path, target: str | Path, *, threads: int = 2) -> None:
    """Write `source` with every weight dequantised to F32 by llama.cpp's own decoder.

    On such a file llama.cpp rounds no activations: its logits are what the quantised weights mean.

    Raises:
        LlamaCppError: when libllama cannot read or write it.
    """
    params = ll.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = ll.LLAMA_FTYPE_ALL_F32
    params.allow_requantize = params.quantize_output_tensor = True
    paths = (str(source).encode(), str(target).encode())
    if ll.llama_model_quantize(*paths, ctypes.byref(params)) != 0:
        raise LlamaCppError(f"llama.cpp cannot write {source} as F32")


def token_ids(
    vocab: ll.llama_vocab_p, text: str, *, add_special: bool, parse_special: bool
) -> list[int]:
    """Return the ids of a text in a vocabulary of libllama's.

    Raises:
        LlamaCppError: when libllama cannot tokenise it.
    """
    data = text.encode()
    room = 2 * len(data) + 8
    ids = (ll.llama_token * room)()
    count = ll.llama_tokenize(vocab, data, len(data), ids, room, add_special, parse_special)
    if count < 0:
        raise LlamaCppError(f"llama.cpp needs {-count} tokens for {len(data)} bytes of text")
    return list(ids[:count])


class LlamaCpp:
    """One GGUF file in llama.cpp on the CPU.

    Args:
        path: the (first) GGUF file.
        n_ctx: most tokens that `logits` will get.
        kv_type: element type of the KV cache, a key of `KV_TYPES`.
        threads: CPU threads.
        flash: attend by its fused kernel.
        repack: let llama.cpp rearrange quantised weights for its fastest kernels; off by
            default, so that figures from different machines are closer to each other.

    Raises:
        LlamaCppError: when libllama refuses the file or the context.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        n_ctx: int,
        kv_type: str = "f32",
        threads: int = 2,
        flash: bool = False,
        repack: bool = False,
    ) -> None:
        ll.llama_backend_init()
        model_params = ll.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model_params.use_extra_bufts = repack
        self._model = ll.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise LlamaCppError(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx = params.n_batch = n_ctx
        params.n_ubatch = min(n_ctx, 512)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv_type]
        flash_types = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED, ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.flash_attn_type = flash_types[flash]
        self._context = ll.llama_init_from_model(self._model, params)
        if not self._context:
            ll.llama_model_free(self._model)
            raise LlamaCppError(f"llama.cpp cannot make a context of {n_ctx} tokens for {path}")
        self._vocab = ll.llama_model_get_vocab(self._model)
        self.vocab_size: int = ll.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the context and the model."""
        ll.llama_free(self._context)
        ll.llama_model_free(self._model)

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Return the token ids of `text`.

        Raises:
            LlamaCppError: when libllama cannot tokenise it.
        """
        return token_ids(self._vocab, text, add_special=add_special, parse_special=parse_special)

    def logits(
        self, tokens: Sequence[int], *, chunk: int | None = None
    ) -> NDArray[np.float32]:  # (T, V)
        """Return the logits after every one of `tokens`, from an empty KV cache.

        Args:
            tokens: token ids, (T,); at most the `n_ctx` that was given.
            chunk: tokens a call of `llama_decode`; all of them when None.

        Raises:
            LlamaCppError: when `llama_decode` fails.
        """
        ll.llama_memory_clear(ll.llama_get_memory(self._context), True)
        step = chunk or len(tokens)
        parts = [
            self._decode(tokens[start : start + step], start)
            for start in range(0, len(tokens), step)
        ]
        return np.concatenate(parts)

    def _decode(self, tokens: Sequence[int], position: int) -> NDArray[np.float32]:  # (T, V)
        batch = ll.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i] = token
                batch.pos[i] = position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = 1
            status = ll.llama_decode(self._context, batch)
            if status != 0:
                raise LlamaCppError(f"llama_decode returned {status} at position {position}")
            shape = (len(tokens), self.vocab_size)
            return np.ctypeslib.as_array(ll.llama_get_logits(self._context), shape).copy()
        finally:
            ll.llama_batch_free(batch)
