"""The format of ``models.toml``: one table a model, and what follows from its figures."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from moestream.engine.advice import read_sampling
from moestream.errors import CatalogError
from moestream.reasons import reason_of

SOURCE_KINDS = ("recipe", "hf", "file", "ollama", "lmstudio")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One table of ``models.toml``. What a table does not say is None.

    One that is built on another, its ``base``, has what that does not say from there; its source
    may be empty until then.

    The figures are the publisher's: ``parameters`` and ``active_parameters`` in all, the others as
    in a model's ``config.json``, with ``num_moe_layers`` the layers that have experts.
    """

    name: str
    source: str = ""  # "KIND:WHAT"
    description: str = ""
    licence: str | None = None
    published: str | None = None
    """The repository of the model that it was made of."""
    architecture: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    num_moe_layers: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    hidden_size: int | None = None
    moe_intermediate_size: int | None = None
    expert_parameters: int | None = None
    """Of one routed expert, where it is not three matrices of these two sizes."""
    table_parameters: int | None = None
    """Of tables that stay in the file, of which a token reads rows."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """By the names of options, without dashes."""
    sampling_source: str | None = None
    recommended: bool = False
    base: str | None = None
    system_prompt: str | None = None
    context: int | None = None
    profile: str | None = None

    @property
    def kind(self) -> str:
        """How the file comes to be: one of ``SOURCE_KINDS``."""
        return self.source.partition(":")[0]

    @property
    def what(self) -> str:
        """The source without its kind."""
        return self.source.partition(":")[2]

    @property
    def parameters_per_expert(self) -> int | None:
        """What one routed expert of one layer has."""
        if self.expert_parameters or not self.hidden_size or not self.moe_intermediate_size:
            return self.expert_parameters
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def expert_bytes(self) -> int | None:
        """About what all routed experts take in the file: their share of its parameters."""
        shape = (self.num_moe_layers, self.num_experts, self.parameters_per_expert)
        return None if None in shape else self._share_bytes(math.prod(n or 0 for n in shape))

    @property
    def loadable_bytes(self) -> int | None:
        """About what can be in memory of the file: all but its tables."""
        tables = self._share_bytes(self.table_parameters or 0)
        return self.size_bytes and self.size_bytes - (tables or 0)

    def _share_bytes(self, parameters: int) -> int | None:
        """About what so many of the parameters take in the file."""
        if not self.size_bytes or not self.parameters:
            return None
        return int(self.size_bytes * parameters / self.parameters)

    @property
    def expert_bytes_per_token(self) -> int | None:
        """About what one token reads of them."""
        total = self.expert_bytes
        if total is None or not self.num_experts or self.num_experts_per_tok is None:
            return None
        return total * self.num_experts_per_tok // self.num_experts


def _type_of(field: Field[Any]) -> type:
    told = str(field.type)
    kinds = {"Mapping": dict, "int": int, "bool": bool}
    return next((kind for name, kind in kinds.items() if name in told), str)


_KEYS = {"base": "from"}
"""Of a table, where they are none of Python's names."""
_TYPES: dict[str, type] = {
    _KEYS.get(field.name, field.name): _type_of(field)
    for field in fields(ModelSpec)
    if field.name != "name"
}


def parse_catalog(text: str, origin: str) -> dict[str, ModelSpec]:
    """Read the text of a ``models.toml``; ``origin`` names it in errors.

    Raises:
        CatalogError: not TOML, or a table that is not a model.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{origin} is not TOML: {reason_of(error)}") from None
    return {name: _parse_model(name, table, origin) for name, table in tables.items()}


def _parse_model(name: str, table: Any, origin: str) -> ModelSpec:
    where = f"{origin}: model {name!r}"
    if not NAME.fullmatch(name):
        raise CatalogError(f"{where}: a name is of lower-case letters, digits, '.', '_' and '-'")
    if not isinstance(table, dict):
        raise CatalogError(f"{where}: expected a table, [{name}], not {table!r}")
    for key, value in table.items():
        if key not in _TYPES:
            raise CatalogError(f"{where}: unknown key {key!r}; the keys are {', '.join(_TYPES)}")
        if type(value) is not _TYPES[key]:
            raise CatalogError(f"{where}: {key} = {value!r} is not a {_TYPES[key].__name__}")
    if "source" not in table and "from" not in table:
        raise CatalogError(f"{where}: missing source, or from with the name of another model")
    names = {key: name for name, key in _KEYS.items()}
    values: dict[str, Any] = {names.get(f"{key}", f"{key}"): each for key, each in table.items()}
    spec = ModelSpec(name=name, **values)
    _check_values(spec, where)
    return spec


def _check_values(spec: ModelSpec, where: str) -> None:
    if (spec.source or not spec.base) and (spec.kind not in SOURCE_KINDS or not spec.what):
        raise CatalogError(
            f"{where}: source = {spec.source!r} is not KIND:WHAT with a KIND of "
            f"{', '.join(SOURCE_KINDS)}"
        )
    for key, kind in _TYPES.items():
        value = getattr(spec, key, None)
        if kind is int and value is not None and value <= 0:
            raise CatalogError(f"{where}: {key} = {value} is not positive")
    try:
        read_sampling(spec.sampling)
    except ValueError as error:
        raise CatalogError(f"{where}: sampling: {error}") from None
    if spec.sha256 is not None and not _SHA256.fullmatch(spec.sha256):
        raise CatalogError(f"{where}: sha256 = {spec.sha256!r} is not 64 lower-case hex digits")
