"""The models that have names, and what a MODEL argument leads to.

``spec`` is the format of ``models.toml``, ``entries`` the shipped file and the user's, ``resolve``
the step from a name, ``hf:`` reference or path to a file that exists. Knows nothing of what is
inside a model file, nor how one is built or fetched: that is ``demo`` and ``hub``.
"""

from moestream.catalog.advice import Advice, advice
from moestream.catalog.entries import add_entry, catalog, remove_entry, user_catalog
from moestream.catalog.resolve import fetched_without_name, find_spec, in_stores, locate, resolve
from moestream.catalog.spec import ModelSpec, parse_catalog

__all__ = [
    "Advice",
    "ModelSpec",
    "add_entry",
    "advice",
    "catalog",
    "fetched_without_name",
    "find_spec",
    "in_stores",
    "locate",
    "parse_catalog",
    "remove_entry",
    "resolve",
    "user_catalog",
]
