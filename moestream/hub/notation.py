"""What ``ORG/REPO[:QUANT|FILE]`` means among the files of a repository.

Owns the notation, as llama.cpp's ``-hf`` has it, the grouping of shards and the choice. Works on
names alone, so the hub's listing and a folder on this machine are read alike.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from moestream.errors import ModelNotFoundError
from moestream.folders import find_name, has_suffix

PREFIX = "hf:"
SUFFIX = ".gguf"
DEFAULT_QUANT = "Q4_K_M"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>[^/:?#\s]+/[^/:?#\s]+)"
    r"(?P<quant>:[^/?#\s]+)?(?:/(?:blob|resolve|tree|raw)/[^/?#\s]+(?:/(?P<file>[^?#\s]+))?)?"
    r"/?(?:[?#].*)?"
)
"""A repository's page, or a file's, as a browser shows its address."""
_QUANT = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d(?:_[0-9A-Z]+)*|TQ\d_\d|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4))$",
    re.IGNORECASE,
)
_BESIDE_MODELS = re.compile(r"(?:^|/)(?:mmproj|mtp|imatrix)[-_./]|[-_.]imatrix\.", re.IGNORECASE)
"""Files in GGUF that are no language model: projectors, draft heads, calibration data."""


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository, and perhaps which of its files: a quantisation's name or a file's."""

    repository: str
    what: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f":{self.what}" if self.what else "")

    @property
    def names_file(self) -> bool:
        """Whether ``what`` is a file, not a quantisation."""
        return self.what is not None and has_suffix(self.what, SUFFIX)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model of a repository: a file, or all shards of one, in order."""

    quant: str | None
    names: tuple[str, ...]
    """Paths in the repository."""


def is_reference(text: str) -> bool:
    """Whether a text says of itself that it is of the hub: by ``hf:``, or as a page's address."""
    return text[: len(PREFIX)].casefold() == PREFIX or _PAGE.match(text) is not None


def parse_reference(text: str) -> HubReference:
    """Read ``ORG/REPO``, ``ORG/REPO:QUANT`` or ``ORG/REPO:FILE.gguf``, with or without ``hf:``.

    Or the address of a repository's page, or of a file's.

    Raises:
        ModelNotFoundError: it is none of these.
    """
    if (page := _PAGE.fullmatch(text)) is not None:
        file = unquote(page["file"] or "")
        colon = ":" if has_suffix(file, SUFFIX) else ""
        text = f"{page['repository']}{colon}{file if colon else page['quant'] or ''}"
    named = text[len(PREFIX) :] if text[: len(PREFIX)].casefold() == PREFIX else text
    repository, colon, what = named.partition(":")
    wrong = not _REPOSITORY.fullmatch(repository) or (colon and not what)
    if wrong or ".." in PurePosixPath(what).parts or what.startswith("/"):
        raise ModelNotFoundError(
            f"{text!r} names nothing on the hub; expected hf:ORG/REPO, hf:ORG/REPO:QUANT as in "
            "hf:unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M, or hf:ORG/REPO:FILE.gguf"
        )
    return HubReference(repository, what or None)


def group_shards(names: Iterable[str], *, whole: bool = True) -> list[ModelFiles]:
    """Return the models among a repository's files.

    Split ones only where no shard is missing; without ``whole``, those with gaps too.
    """
    models: list[ModelFiles] = []
    shards: dict[tuple[str, int], dict[int, str]] = {}
    for name in sorted(names):
        if not has_suffix(name, SUFFIX) or _BESIDE_MODELS.search(name):
            continue
        match = _SHARD.fullmatch(name)
        if match is None:
            models.append(ModelFiles(_quant(name[: -len(SUFFIX)]), (name,)))
        else:
            key = match["stem"], int(match["count"])
            shards.setdefault(key, {})[int(match["number"])] = name
    for (stem, count), parts in shards.items():
        if not whole or sorted(parts) == list(range(1, count + 1)):
            models.append(ModelFiles(_quant(stem), tuple(parts[n] for n in sorted(parts))))
    return models


def choose(reference: HubReference, models: Sequence[ModelFiles], where: str) -> ModelFiles:
    """Return the model that is meant: by file, by quantisation, or the one that is usual.

    Without either it is Q4_K_M, or the only model that there is. ``UD-`` may be left out of a
    quantisation's name where that leaves one choice.

    Raises:
        ModelNotFoundError: none or several fit; those that there are are named.
    """
    if not models:
        raise ModelNotFoundError(
            f"{where} has no GGUF model; look for a repository with GGUF files"
        )
    found = matching(reference, models)
    if len(found) == 1:
        return found[0]
    wanted = reference.what or f"{DEFAULT_QUANT} (what is taken if nothing is asked for)"
    known = ", ".join(dict.fromkeys(model.quant or model.names[0] for model in models))
    if not found:
        raise ModelNotFoundError(f"{where} has no {wanted}; it has {known}")
    several = ", ".join(model.names[0] for model in found)
    raise ModelNotFoundError(
        f"{where} has several {wanted}: {several}; name one as hf:{reference.repository}:FILE"
    )


def matching(reference: HubReference, models: Sequence[ModelFiles]) -> list[ModelFiles]:
    """The models that a reference may mean."""
    what = reference.what
    if reference.names_file:
        names = [name for model in models for name in model.names]
        meant = find_name(str(what), names)
        if meant is not None:
            return [model for model in models if meant in model.names]
        base = find_name(str(what), {PurePosixPath(name).name for name in names})
        return [m for m in models if base in [PurePosixPath(name).name for name in m.names]]
    if what is None and len(models) == 1:
        return list(models)
    wanted = (what or DEFAULT_QUANT).upper()
    exact = [model for model in models if model.quant == wanted]
    return exact or [model for model in models if model.quant == f"UD-{wanted}"]


def quantisation(file: str) -> str | None:
    """What a file's path, or a reference to one, says that it is quantised to, in capitals."""
    stem = file[: -len(SUFFIX)] if has_suffix(file, SUFFIX) else file.rpartition(":")[2]
    shard = _SHARD.fullmatch(file)
    return _quant(stem if shard is None else shard["stem"])


def _quant(stem: str) -> str | None:
    """The quantisation that a file's or its folder's name ends with, in capitals."""
    path = PurePosixPath(stem)
    for name in (path.name, path.parent.name):
        match = _QUANT.search(name)
        if match is not None:
            return match[1].upper()
    return None
