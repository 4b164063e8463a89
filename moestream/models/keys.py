"""Typed access to a model's own metadata, ``<architecture>.<key>``.

Owns the checks of single values and what their errors say. Knows no architecture.
"""

import math

from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.gguf import GGUFHeader

Supported = dict[str, tuple[tuple[float, ...], str]]
"""Keys with the only values that an architecture here has the arithmetic for, the first being the
default, and what they mean."""

_CHEAP_LAYERS = 1024
"""So many may be read of before the first tensor is missed; more only where tensors are there."""
_MOST = 2**31 - 1
"""Far more than there is of anything in a model."""


class Keys:
    """The metadata of one file; every error names the file and the key."""

    def __init__(self, file: GGUFHeader) -> None:
        self.file = file
        self.architecture = file.get("general.architecture", str)
        self._largest = max((max(info.shape) for info in file.tensors.values()), default=_MOST)

    def name(self, key: str) -> str:
        """The key's full name."""
        return f"{self.architecture}.{key}"

    def count(self, key: str, default: int | None = None) -> int:
        """A number of things, the same in all layers."""
        name = self.name(key)
        values = self.file.metadata.get(name)
        if isinstance(values, list) and len(set(map(repr, values))) == 1:
            return self._counted(name, values[0])  # told layer by layer, and all the same
        if isinstance(values, list):
            raise UnsupportedModelError(
                f"{self.file.path}: {name} differs from layer to layer, which "
                f"{self.architecture} does not support here"
            )
        value = self.file.get(name, int) if default is None else self.file.get(name, int, default)
        return self._counted(name, value)

    def size(self, key: str, default: int | None = None) -> int:
        """At least one, and a dimension of some tensor, so that what is made of it is bounded."""
        value = self.positive(key, default)
        self.require_size(self.name(key), value)
        return value

    def require_size(self, what: str, value: int) -> None:
        """Refuse a dimension that no tensor of the file has, before anything is made of its size.

        Raises:
            ModelFormatError: it is larger than any.
        """
        if value > self._largest:
            raise ModelFormatError(
                f"{self.file.path}: {what} is {value}, but no dimension of a tensor is larger "
                f"than {self._largest}"
            )

    def num_layers(self) -> int:
        """Layers of the model proper, without those that predict further tokens.

        Raises:
            ModelFormatError: there are none, or the file has tensors of fewer.
        """
        layers, further = self.positive("block_count"), self.count("nextn_predict_layers", 0)
        if further >= layers:
            raise ModelFormatError(
                f"{self.file.path}: {self.name('nextn_predict_layers')} leaves none of {layers} "
                f"layers: nextn_predict_layers is {further}, expected fewer than the {layers} "
                "layers there are"
            )
        blocks = {name.split(".")[1] for name in self.file.tensors if name.startswith("blk.")}
        if layers - further > max(len(blocks), _CHEAP_LAYERS):
            raise ModelFormatError(
                f"{self.file.path}: {self.name('block_count')} is {layers}, but the file has "
                f"tensors of {len(blocks)} layers; it is damaged, or a part of a model"
            )
        return layers - further

    def per_layer(self, key: str, num_layers: int, default: int | None = None) -> tuple[int, ...]:
        """A number of things in each layer: one for all, or one a layer."""
        name = self.name(key)
        values = self.file.metadata.get(name)
        if not isinstance(values, list):
            return (self.count(key, default),) * num_layers
        whole = [int(value) for value in values if isinstance(value, int)]  # or yes and no
        if not num_layers <= len(whole) == len(values):
            raise ModelFormatError(
                f"{self.file.path}: {name} has {len(values)} values, expected a whole number for "
                f"each of {num_layers} layers"
            )
        return tuple(self._counted(name, value) for value in whole[:num_layers])

    def per_layer_numbers(
        self, key: str, num_layers: int, default: float | None = None
    ) -> tuple[float, ...]:
        """A finite number of at least 0 in each layer: one for all, or one a layer."""
        name = self.name(key)
        values = self.file.metadata.get(name)
        if not isinstance(values, list):
            return (self.number(key, default),) * num_layers
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if not num_layers <= len(numbers) == len(values):
            raise ModelFormatError(
                f"{self.file.path}: {name} has {len(values)} values, expected a number for each "
                f"of {num_layers} layers"
            )
        if any(not math.isfinite(number) or number < 0 for number in numbers):
            raise ModelFormatError(f"{self.file.path}: {name} has a value that is less than 0")
        return tuple(numbers[:num_layers])

    def numbers(self, key: str, length: int) -> tuple[int, ...]:
        """A list of exactly so many counts."""
        name = self.name(key)
        values = self.file.get(name, list)
        if len(values) != length or not all(isinstance(value, int) for value in values):
            raise ModelFormatError(
                f"{self.file.path}: {name} is {values}, expected {length} whole numbers"
            )
        return tuple(self._counted(name, value) for value in values)

    def flags(self, key: str, num_layers: int) -> tuple[bool, ...] | None:
        """Yes or no for each layer; None if the file does not say."""
        name = self.name(key)
        if name not in self.file.metadata:
            return None
        values = self.file.get(name, list)
        if len(values) < num_layers or not all(isinstance(value, bool) for value in values):
            raise ModelFormatError(
                f"{self.file.path}: {name} has {len(values)} values, expected yes or no for each "
                f"of {num_layers} layers"
            )
        return tuple(values[:num_layers])

    def head_dim(self) -> int:
        """Length of a head's keys, all heads being alike."""
        usual = self.positive("embedding_length") // self.positive("attention.head_count")
        return self.count("attention.key_length", usual)

    def attending_heads(self, interval: int) -> tuple[int, ...]:
        """Key/value heads of each layer, 0 where it does not attend: most but each ``interval``-th.

        A file may say which, or how often one attends.
        """
        layers = self.num_layers()
        heads = self.per_layer(
            "attention.head_count_kv", layers, self.count("attention.head_count")
        )
        recurrent = self.flags("attention.recurrent_layers", layers)
        if recurrent is None:
            interval = self.positive("full_attention_interval", interval)
            recurrent = tuple((layer + 1) % interval != 0 for layer in range(layers))
        return tuple(0 if r else n for r, n in zip(recurrent, heads, strict=True))

    def marked_layers(self, key: str, layers: int, default: int | None = None) -> tuple[bool, ...]:
        """Yes or no for each layer, which files write as numbers too."""
        return tuple(map(bool, self.per_layer(key, layers, default)))

    def positive(self, key: str, default: int | None = None) -> int:
        """A count of at least one."""
        value = self.count(key, default)
        if value == 0:
            raise ModelFormatError(f"{self.file.path}: {self.name(key)} is 0, expected at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number of at least 0."""
        name = self.name(key)
        value = (
            self.file.get(name, float) if default is None else self.file.get(name, float, default)
        )
        if not math.isfinite(value) or value < 0:
            raise ModelFormatError(
                f"{self.file.path}: {name} is {value}, expected a finite number of at least 0"
            )
        return value

    def above(self, limit: int, key: str, default: float | None = None) -> float:
        """A finite number greater than ``limit``."""
        value = self.number(key, default)
        if value <= limit:
            raise ModelFormatError(
                f"{self.file.path}: {self.name(key)} is {value}, expected more than {limit}"
            )
        return value

    def windowed_layers(
        self, num_layers: int, every: int, *, first_full: bool = False
    ) -> tuple[bool, ...]:
        """Which layers see a window: all but one of ``every``, unless the file says otherwise.

        The one is the last of them, or the first.
        """
        key = "attention.sliding_window_pattern"
        pattern = self.file.metadata.get(self.name(key))
        if not isinstance(pattern, list):
            every = self.count(key, every)
            full = 0 if first_full else every - 1
            return tuple(every == 0 or index % every != full for index in range(num_layers))
        if len(pattern) < num_layers:
            raise ModelFormatError(
                f"{self.file.path}: {self.name(key)} has {len(pattern)} values, expected one for "
                f"each of {num_layers} layers"
            )
        return tuple(bool(value) for value in pattern[:num_layers])

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no."""
        return self.file.get(self.name(key), bool, default)

    def text(self, key: str, default: str) -> str:
        """A word."""
        return self.file.get(self.name(key), str, default)

    def require(self, supported: Supported) -> None:
        """Refuse what is not supported.

        Raises:
            UnsupportedModelError: a value asks for what we lack.
        """
        for key, (values, meaning) in supported.items():
            value = self.file.get(self.name(key), type(values[0]), values[0])
            if value not in values:
                raise UnsupportedModelError(
                    f"{self.file.path}: {self.name(key)} is {value}; supported is {meaning}; "
                    "choose another model, or a conversion of this one that does without"
                )

    def vocab_size(self) -> int:
        """Rows of the embedding, one a token where the file has a vocabulary at all."""
        rows = self.file.tensor_info("token_embd.weight").shape[-2:][0]
        tokens = len(self.file.get("tokenizer.ggml.tokens", list, ()))
        if tokens not in (0, rows):
            raise ModelFormatError(
                f"{self.file.path}: tensor 'token_embd.weight' has {rows} rows, but the "
                f"vocabulary has {tokens} tokens"
            )
        return rows

    def _counted(self, name: str, value: object) -> int:
        if type(value) is not int or not 0 <= value <= _MOST:
            raise ModelFormatError(f"{self.file.path}: {name} is {value}, expected a count")
        return value
