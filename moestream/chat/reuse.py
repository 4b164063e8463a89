"""How much of a prompt was in the KV cache already, in words."""

from collections.abc import Sequence

from moestream.tokenizer import Tokenizer

_SHOWN_TOKENS = 12


def kept_told(prompt_tokens: int, cached_tokens: int) -> str:
    """How many of a prompt's tokens were kept."""
    return f"{cached_tokens:,} of the prompt's {prompt_tokens:,} tokens were kept"


def reuse_told(tokenizer: Tokenizer, prompt: Sequence[int], cached_tokens: int) -> str:
    """That, and where what had to be read begins."""
    begins = tokenizer.decode(prompt[cached_tokens : cached_tokens + _SHOWN_TOKENS])
    return f"{kept_told(len(prompt), cached_tokens)}, reading began at {begins!r}"
