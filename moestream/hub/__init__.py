"""Models on the Hugging Face hub: which files are meant, where they lie here, how they come.

``reference`` reads ORG/REPO:QUANT and picks files by it, ``local`` finds those that are here,
``listing`` asks the hub, ``header`` fetches what a model says of itself and ``download`` all of it.
Only these three need ``huggingface_hub``, which is imported when they are used, and only ``header``
has to do with what is inside a model file.
"""

from moestream.hub.local import find, remove, repository_folder
from moestream.hub.notation import HubReference, ModelFiles, choose, group_shards, parse_reference

__all__ = [
    "HubReference",
    "ModelFiles",
    "choose",
    "find",
    "group_shards",
    "parse_reference",
    "remove",
    "repository_folder",
]
