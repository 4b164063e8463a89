"""Models on the Hugging Face hub: which files are meant, where they lie here, how they come.

``notation`` reads ORG/REPO:QUANT and picks files by it, ``local`` finds those that are here,
``http`` asks the hub, ``search`` which repositories there are, ``repository`` what one has,
``remote_header`` what a model says of itself, and ``download`` fetches all of it: over the
connections of ``transfer``, into the files of ``partial``. Only these need ``huggingface_hub``,
which is imported when they are used, and only ``remote_header`` has to do with what is inside a
model file. ``stores`` are the folders of other programs.
"""

from moestream.hub.local import find, here, remove, repository_folder
from moestream.hub.notation import (
    PREFIX,
    SUFFIX,
    HubReference,
    ModelFiles,
    choose,
    group_shards,
    is_reference,
    parse_reference,
)

__all__ = [
    "PREFIX",
    "SUFFIX",
    "HubReference",
    "ModelFiles",
    "choose",
    "find",
    "group_shards",
    "here",
    "is_reference",
    "parse_reference",
    "remove",
    "repository_folder",
]
