"""How a model is to be sampled, by its maker's word: in its file, or in the words of options.

Owns the names of the file's keys, which are llama.cpp's. What a user says goes before advice.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moestream.declare import Declared, declared
from moestream.engine.options import SamplingParams

if TYPE_CHECKING:
    from moestream.gguf import GGUFHeader

_log = logging.getLogger(__name__)
_PREFIX = "general.sampling."
_KEYS = {
    "sequence": "samplers",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temp": "temperature",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
_DIGITS = 7
"""Of a file's numbers, which are of 32 bits: the rest is none of the maker's."""


def file_advice(file: "GGUFHeader") -> dict[str, Any]:
    """What a file advises, by field of ``SamplingParams``; what makes no sense is left out."""
    fields, found = declared(SamplingParams), {}
    for key, name in _KEYS.items():
        value = file.metadata.get(_PREFIX + key)
        if value is None:
            continue
        try:
            found[name] = _parse(fields[name], value)
        except ValueError as error:
            _log.warning("%s%s of the file is left out: %s", _PREFIX, key, error)
    return found


def read_sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by field of ``SamplingParams``, from the names of options without their dashes.

    Raises:
        ValueError: a name that is none, or a value that it does not take.
    """
    known = {
        flag.lstrip("-"): each
        for each in declared(SamplingParams).values()
        if not each.option.many
        for flag in (*each.flags, each.name)
    }
    found = {}
    for key, value in values.items():
        each = known.get(key) or known.get(key.replace("_", "-"))
        if each is None:
            raise ValueError(f"{key!r} is no setting of sampling; there are {', '.join(known)}")
        found[each.name] = _parse(each, value)
    return found


def sampling_told(values: Mapping[str, Any]) -> str:
    """Settings in words, by the names of their options."""
    fields = declared(SamplingParams)
    return ", ".join(f"{fields[name].flag} {_told(value)}" for name, value in values.items())


def _parse(each: Declared, value: Any) -> Any:
    if isinstance(value, float):
        value = float(f"{value:.{_DIGITS}g}")
        if each.option.kind is int and value.is_integer():
            value = int(value)
    return each.parse(_told(value))


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ";".join(map(str, value)) if isinstance(value, tuple | list) else f"{value}"
