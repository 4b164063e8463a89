"""The file of a profile: JSON with a layer a line, so that a person can read and compare it.

Owns the format, which ``docs/profiles.md`` describes, its checks, and the safe writing: whoever
reads a profile's name finds the old file or the new one, whole.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from moestream.errors import ProfileError
from moestream.folders import beginning, replacing, require_writable
from moestream.profiles.fingerprint import Fingerprint
from moestream.profiles.profile import Profile
from moestream.reasons import reason_of

FORMAT = "moestream profile"
VERSION = 1
_MOST_BYTES = 64 << 20
"""Far more than any model's profile has: what is bigger is something else."""
_MOST_COUNT = 2**53
_MOST_LAYERS = 1 << 16
_HEX = frozenset("0123456789abcdef")


def write_profile(profile: Profile, path: Path) -> Profile:
    """Write a profile, replacing what is there at once or not at all; return it with its date.

    Raises:
        ProfileError: nothing was counted, the disk refuses, or what is there is no profile; the old
            file, if any, is untouched.
    """
    if not profile.tokens:
        raise ProfileError(f"{path}: not written, for no token was routed: there is no profile")
    profile = replace(profile, saved=datetime.now(UTC).isoformat(timespec="seconds"))
    _require_ours(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(_to_text(profile))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from None
    return profile


def require_place(path: Path) -> None:
    """Find out whether a profile can be written there, before the work that it is to tell of.

    Raises:
        ProfileError: it cannot, or what is there is no profile.
    """
    try:
        require_writable(path)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from None
    _require_ours(path)


def _require_ours(path: Path) -> None:
    """A damaged profile may be saved again; what is something else stays."""
    if (held := beginning(path).strip()) and f'"{FORMAT}"'.encode() not in held:
        raise ProfileError(
            f"{path}: exists and is no profile: it is left as it is; give another name, or remove "
            "it first"
        )


def read_profile(path: Path, name: str) -> Profile:
    """Read a profile and call it ``name``.

    Raises:
        ProfileError: it is missing, damaged, or of a version that is not known here; the message
            names the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise ProfileError(f"{path}: is bigger than {_MOST_BYTES >> 20} MiB: not a profile")
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProfileError(
            f"{path}: damaged, or not a profile ({reason_of(error)}); save it again"
        ) from None
    return _Reader(path).profile(value, name)


def _to_text(profile: Profile) -> str:
    fingerprint = profile.fingerprint
    head = {
        "format": FORMAT,
        "version": VERSION,
        "saved": profile.saved,
        "model": {
            "name": profile.model,
            "architecture": fingerprint.architecture,
            "num_layers": fingerprint.num_layers,
            "num_experts": fingerprint.num_experts,
            "num_experts_per_tok": fingerprint.num_experts_per_tok,
            "tensors_sha256": fingerprint.tensors_sha256,
        },
        "options": dict(profile.options),
        "tokens": profile.tokens,
        "half_life": profile.half_life,
    }
    layers = [
        {
            "layer": layer,
            "expert_bytes": fingerprint.expert_bytes[layer],
            "uses": profile.uses[row].tolist(),
            "decayed": [float(f"{count:.6g}") for count in profile.decayed[row].tolist()],
        }
        for row, layer in enumerate(profile.layers)
    ]
    lines = [f'"{key}": {json.dumps(value, ensure_ascii=True)}' for key, value in head.items()]
    rows = ",\n  ".join(json.dumps(layer) for layer in layers)
    return "{" + ",\n ".join([*lines, f'"layers": [\n  {rows}\n ]']) + "\n}\n"


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


class _Reader:
    """Checks every value of a file that may hold anything."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def profile(self, value: Any, name: str) -> Profile:
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            self._fail(f'not a profile: it has no "format": "{FORMAT}"')
        version = value.get("version")
        if version != VERSION or type(version) is not int:
            self._fail(
                f"a profile of version {version!r}; this program knows version {VERSION}: save it "
                "again, or use the program that wrote it"
            )
        model = self._get(value, "model", dict)
        experts, per_token = (self._count(model, k) for k in ("num_experts", "num_experts_per_tok"))
        num_layers = self._count(model, "num_layers")
        if num_layers > _MOST_LAYERS:
            self._fail(f"damaged: num_layers is {num_layers}")
        layers = self._get(value, "layers", list)
        sizes: dict[int, int] = {}
        rows = [self._layer(row, sizes, num_layers, experts) for row in layers]
        if not rows or not 1 <= per_token <= experts:
            self._fail(f"damaged: {len(rows)} layers, {per_token} of {experts} experts a token")
        if not any(sum(decayed) for _, decayed in rows):
            self._fail("damaged: no expert was ever used")
        return Profile(
            name=name,
            model=self._get(model, "name", str),
            fingerprint=Fingerprint(
                self._get(model, "architecture", str),
                num_layers,
                experts,
                per_token,
                sizes,
                self._hash(model),
            ),
            tokens=self._count(value, "tokens"),
            uses=np.array([uses for uses, _ in rows], np.int64),
            decayed=np.array([decayed for _, decayed in rows], np.float64),
            half_life=self._number(self._get(value, "half_life", float, int), "half_life"),
            saved=self._get(value, "saved", str),
            options=self._get(value, "options", dict),
        )

    def _layer(
        self, row: Any, sizes: dict[int, int], num_layers: int, num_experts: int
    ) -> tuple[list[int], list[float]]:
        if not isinstance(row, dict):
            self._fail(f"damaged: a layer is {str(row)[:40]!r}, expected an object")
        layer = self._count(row, "layer", least=0)
        if layer >= num_layers or (sizes and layer <= max(sizes)):
            self._fail(f"damaged: layer {layer} after {list(sizes)[-1:]}, of {num_layers} layers")
        sizes[layer] = self._count(row, "expert_bytes")
        uses, decayed = (self._get(row, key, list) for key in ("uses", "decayed"))
        for key, counts in (("uses", uses), ("decayed", decayed)):
            if len(counts) != num_experts:
                self._fail(f"damaged: layer {layer} has {len(counts)} {key}, not {num_experts}")
        if any(type(count) is not int or not 0 <= count < _MOST_COUNT for count in uses):
            self._fail(f"damaged: uses of layer {layer} are not all whole numbers")
        return uses, [
            self._number(count, f"decayed of layer {layer}", least=0) for count in decayed
        ]

    def _get(self, values: Mapping[str, Any], key: str, *kinds: type) -> Any:
        value = values.get(key)
        if type(value) not in kinds:
            self._fail(f"damaged: {key} is {str(value)[:40]!r}, expected {kinds[0].__name__}")
        return value

    def _count(self, values: Mapping[str, Any], key: str, *, least: int = 1) -> int:
        value: int = self._get(values, key, int)
        if not least <= value < _MOST_COUNT:
            self._fail(f"damaged: {key} is {value}, expected {least} or more")
        return value

    def _number(self, value: Any, what: str, *, least: float = 1e-9) -> float:
        if type(value) not in (int, float) or not least <= value < _MOST_COUNT:
            self._fail(f"damaged: {what} is {str(value)[:40]!r}, expected a number from {least:g}")
        return float(value)

    def _hash(self, model: Mapping[str, Any]) -> str | None:
        value = model.get("tensors_sha256")
        if value is None:
            return None
        if not isinstance(value, str) or len(value) != 64 or not _HEX.issuperset(value):
            self._fail("damaged: tensors_sha256 is not 64 hexadecimal digits")
        return value

    def _fail(self, message: str) -> NoReturn:
        raise ProfileError(f"{self._path}: {message}")
