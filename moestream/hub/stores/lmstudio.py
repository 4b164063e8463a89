"""LM Studio's folder: a folder for each ORG/REPO."""

from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.hub.notation import HubReference, parse_reference
from moestream.hub.stores.stored import Stored, find_in, models_in, subfolders

NAME = "LM Studio"
PREFIX = "lmstudio:"
_ROOTS = (".lmstudio/models", ".cache/lm-studio/models")


def find(what: str) -> Path | None:
    """The file that ``ORG/REPO[:QUANT|FILE]`` leads to.

    Raises:
        ModelNotFoundError: it is no such name.
    """
    try:
        reference = parse_reference(what)
    except ModelNotFoundError:
        raise ModelNotFoundError(
            f"{PREFIX}{what} names nothing; expected {PREFIX}ORG/REPO[:QUANT|FILE]"
        ) from None
    found = (find_in(root / reference.repository, reference) for root in _roots())
    return next((path for path in found if path is not None), None)


def models() -> list[Stored]:
    """All that are there."""
    return [
        Stored(_name(reference), path, NAME)
        for root in _roots()
        for organisation in subfolders(root)
        for folder in subfolders(organisation)
        for reference, path in models_in(folder, f"{organisation.name}/{folder.name}")
    ]


def _name(reference: HubReference) -> str:
    return f"{PREFIX}{reference.repository}:{reference.what}"


def _roots() -> list[Path]:
    return [Path.home() / root for root in _ROOTS]
