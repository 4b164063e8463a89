"""Where models lie that other programs fetched: found, listed and run there, never changed.

A file for each program; each knows its folders, and what its names lead to.
"""

from moestream.hub.stores import hf_cache, llama_cpp, lmstudio, ollama
from moestream.hub.stores.stored import Stored

__all__ = ["Stored", "everything", "hf_cache", "llama_cpp", "lmstudio", "ollama"]


def everything() -> list[Stored]:
    """All models in the stores that are here."""
    return [each for store in (hf_cache, llama_cpp, lmstudio, ollama) for each in store.models()]
