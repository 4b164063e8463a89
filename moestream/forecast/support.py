"""Whether a model will run here at all: the questions that loading it asks, put to its header."""

from moestream.errors import MoestreamError
from moestream.gguf import GGUFHeader
from moestream.models import summary
from moestream.tokenizer import Tokenizer


def unsupported_reason(file: GGUFHeader) -> str | None:
    """Say why the model cannot run here: its architecture, metadata, tensors or tokenizer."""
    reason = summary.unsupported_reason(file)
    if reason is not None:
        return reason
    try:
        Tokenizer.from_gguf(file)
    except MoestreamError as error:
        return str(error)
    return None
