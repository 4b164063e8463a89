"""Whether a model will run here at all: the questions that loading it asks, put to its header."""

from moestream.errors import MoestreamError
from moestream.gguf import GGUFHeader
from moestream.models import summary
from moestream.tokenizer import Tokenizer

_NONE = "none"
"""The tokenizer of a model that is run by token ids, as in a bench, and says so."""


def unsupported_reason(file: GGUFHeader) -> str | None:
    """Say why the model cannot run here: its architecture, metadata, tensors or tokenizer."""
    reason = summary.unsupported_reason(file)
    if reason is not None or file.metadata.get("tokenizer.ggml.model") == _NONE:
        return reason
    try:
        Tokenizer.from_gguf(file)
    except MoestreamError as error:
        return str(error)
    return None
