"""Keys and values of prompts on disk, so that what was read in one run is not read in the next.

A sequence is stored in blocks of 256 tokens, each under a name made of all tokens up to its end:
prefixes that two conversations share are stored once. What is read back is checked, and anything
that is not right is as if it were not there.
"""

from moestream.prompt_cache.cache import PromptCache
from moestream.prompt_cache.files import BlockFiles, Stored, folder_of_all, stored_models
from moestream.prompt_cache.restoring import Restoring

__all__ = ["BlockFiles", "PromptCache", "Restoring", "Stored", "folder_of_all", "stored_models"]
