"""Which positions a chunk of tokens sees, as MLX's attention is told of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moestream.backends.types import Array

_SCORES_BYTES = 16 << 20
"""Of the scores of a call, where MLX has no kernel that does without them: a few queries at a time
over a long context, so that their memory does not grow with it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk of ``tokens`` from ``start`` on, each seeing the last ``window``; 0 is all."""

    start: int
    tokens: int
    window: int

    @property
    def stop(self) -> int:
        """The first position after the chunk."""
        return self.start + self.tokens

    @property
    def first(self) -> int:
        """The first position that any of the tokens sees."""
        return max(0, self.start - self.window + 1) if self.window else 0

    def parts(self, heads: int) -> "list[Span]":
        """Chunks whose scores, all heads' in 32 bits, are few enough for one call."""
        tokens = max(_SCORES_BYTES // (4 * heads * (self.stop - self.first)), 1)
        starts = range(self.start, self.stop, tokens)
        return [Span(s, min(tokens, self.stop - s), self.window) for s in starts]

    @property
    def is_plain(self) -> bool:
        """Whether each token sees all before it, which MLX needs no mask for."""
        return not self.window or self.stop <= self.window

    def mask(self) -> NDArray[np.bool_]:
        """Which positions from ``first`` on each token sees: (T, S)."""
        ages = np.arange(self.start, self.stop)[:, None] - np.arange(self.first, self.stop)
        return (ages >= 0) & (ages < (self.window or self.stop))


@dataclass(slots=True)
class Masks:
    """The last mask of each window: all layers of a chunk share it."""

    to_device: Callable[[NDArray[np.bool_]], Array]
    made: dict[int, tuple[Span, Array]] = field(default_factory=dict)

    def of(self, span: Span) -> Array | str | None:
        """What MLX is to be told."""
        if span.tokens == 1:
            return None
        if span.is_plain:
            return "causal"
        if span.window not in self.made or self.made[span.window][0] != span:
            self.made[span.window] = (span, self.to_device(span.mask()))
        return self.made[span.window][1]
