"""What the metadata says of a table of n-grams."""

from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.layers.ngrams import NGramShape
from moestream.layers.weights import PER_LAYER
from moestream.models.keys import Keys

_LONGEST = 8
_MOST_ROWS = 2**31 - 1


def read_grams(keys: Keys, size: int, kv_heads: tuple[int, ...]) -> tuple[NGramShape | None, int]:
    """The shape and the layer that n-grams come in before; none where the file has no table.

    Raises:
        ModelFormatError: it makes no sense.
        UnsupportedModelError: several layers have one.
    """
    file, name = keys.file, keys.name("ple.layers")
    layers = file.get(name, list, ())
    if not layers:
        return None, 0
    if len(layers) > 1:
        raise UnsupportedModelError(f"{file.path}: {name} has {len(layers)}; supported is one")
    layer = keys.numbers("ple.layers", 1)[0]
    if layer >= len(kv_heads) or kv_heads[layer]:
        raise ModelFormatError(f"{file.path}: {name} is {layer}, expected a layer with a delta net")
    longest = keys.positive("ple.ngram_size")
    heads = (longest - 1) * keys.positive("ple.heads_per_ngram")
    width = keys.positive("embedding_length_per_layer_input")
    if not 2 <= longest <= _LONGEST or heads * width != size:
        raise ModelFormatError(
            f"{file.path}: grams of up to {longest} tokens by {heads} heads of {width} do not make "
            f"rows of {size}; expected 2 to {_LONGEST} tokens, and heads that do"
        )
    kernel = keys.size("ple.conv_kernel")
    shape = NGramShape(
        longest=longest,
        multipliers=_wide(keys, "ple.layer_multipliers", longest, 2**64),
        offsets=_wide(keys, "ple.head_offsets", heads, _MOST_ROWS),
        sizes=_wide(keys, "ple.head_vocab_sizes", heads, _MOST_ROWS),
        end=keys.count("ple.eos_token_id"),
        kernel=kernel,
    )
    rows = file.tensor_info(PER_LAYER).shape[0]
    if 0 in shape.sizes or max(map(sum, zip(shape.offsets, shape.sizes, strict=True))) > rows:
        raise ModelFormatError(
            f"{file.path}: {keys.name('ple.head_vocab_sizes')} is {list(shape.sizes)}, but "
            f"{PER_LAYER!r} has {rows} rows"
        )
    return shape, layer


def _wide(keys: Keys, key: str, length: int, limit: int) -> tuple[int, ...]:
    """Numbers of 64 bits, below a limit; there may be more than so many."""
    name = keys.name(key)
    values = keys.file.get(name, list)[:length]
    if len(values) < length or any(type(v) is not int or not 0 <= v < limit for v in values):
        raise ModelFormatError(
            f"{keys.file.path}: {name} is {values}, expected {length} whole numbers"
        )
    return tuple(values)
