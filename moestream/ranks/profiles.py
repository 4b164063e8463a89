"""Profiles among ranks: the first one reads them, and each has those of its own layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moestream.errors import ProfileError
from moestream.gguf import GGUFFile
from moestream.models import used_names
from moestream.models.part import names_of
from moestream.profiles import Fingerprint, Profile

Packed = Mapping[str, Any]
"""A profile for a message: ``layers``, and their ``uses`` and ``decayed``."""


def packed(profile: Profile | None, model: Fingerprint | None, name: str) -> Packed | None:
    """A profile of the whole model, ``model`` and called ``name``, to be told to the others.

    Raises:
        ProfileError: it is of another model, or that has no experts.
    """
    if profile is None:
        return None
    if model is None:
        raise ProfileError(f"{name}: has no experts, so a profile is of no use; leave it out")
    profile.require(model, name)
    return {
        "name": profile.name,
        "tokens": profile.tokens,
        "half_life": profile.half_life,
        "layers": list(profile.layers),
        "uses": profile.uses.tolist(),
        "decayed": profile.decayed.tolist(),
    }


def own_profile(told: Packed | None, file: GGUFFile, context: int, part: range) -> Profile | None:
    """What a profile says of one part of the layers; None where there is none, or no experts.

    Lets go of all tensors of ``file`` that the part does not need.
    """
    if told is None:
        return None
    file.restrict(names_of(part, used_names(file, context)))
    try:
        here = Fingerprint.of(file)
    except ProfileError:
        return None
    rows = [told["layers"].index(layer) for layer in here.expert_bytes]
    return Profile(
        name=told["name"],
        model=file.path.name,
        fingerprint=here,
        tokens=told["tokens"],
        uses=np.array(told["uses"], np.int64)[rows],
        decayed=np.array(told["decayed"], np.float64)[rows],
        half_life=told["half_life"],
    )
