"""Run Mixture-of-Experts language models from GGUF files larger than memory.

The public API; everything else may change.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingParams
    from moestream.engine.session import Session
    from moestream.engine.stats import Stats
    from moestream.errors import MoestreamError
    from moestream.tokenizer import Tokenizer

__all__ = ["Engine", "MoestreamError", "SamplingParams", "Session", "Stats", "Tokenizer"]
__version__ = "0.1.0"

_HOMES = {
    "Engine": "moestream.engine.engine",
    "MoestreamError": "moestream.errors",
    "SamplingParams": "moestream.engine.options",
    "Session": "moestream.engine.session",
    "Stats": "moestream.engine.stats",
    "Tokenizer": "moestream.tokenizer",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that ``moestream --help`` does not load NumPy.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
