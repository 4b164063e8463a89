"""A model's pass over rows, which runs a layer at a time and can rest between any two."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.moe import MoE
from moestream.models.blocks import Block, Halves, finish
from moestream.models.decoder import Decoder


class Pass:
    """Rows on their way through the layers; it can rest after each chunk of them in half a layer.

    Other passes, of other sequences, may run meanwhile: no bit of any depends on another, nor on
    how the rows are cut into chunks. Several chunks go through a layer one after the other before
    the first enters the next, so that streamed experts are read once for all of them; and through
    its mixer before the first asks for an expert, so that there is time to read the first layer's.
    """

    def __init__(self, model: Decoder, tokens: NDArray[np.int32], chunks: Sequence[Batch]) -> None:
        """Begin with the embedding: tokens are (T,), in the order of the chunks and their rows."""
        self._model, self._chunks = model, chunks
        self._layer = self._step = 0
        self._begun: list[Halves] = []
        """Of the chunks that have gone through the layer's mixer, but not through its network."""
        ends = np.cumsum([batch.rows for batch in chunks])[:-1]
        self.hidden: list[Array] = model.enter(np.split(tokens, ends), chunks)
        """What has become of the rows so far, by chunk: (T, E) each."""

    def row(self, index: int) -> Array:
        """One row of ``hidden``: (1, E)."""
        for chunk in self.hidden:
            if index < len(chunk):
                return chunk[index : index + 1]
            index -= len(chunk)
        raise IndexError("a pass has no such row")

    def fill_caches(self, *, but_last: bool = False) -> None:
        """Nobody will ask for its rows, ``but_last`` chunk's: it is run for what caches keep."""
        for batch in self._chunks[: -1 if but_last else None]:
            batch.wanted = False

    @property
    def rows(self) -> int:
        """Of all chunks."""
        return sum(batch.rows for batch in self._chunks)

    @property
    def is_long(self) -> bool:
        """Whether it is of several chunks."""
        return len(self._chunks) > 1

    @property
    def done(self) -> float:
        """How much of it has been run, of 1."""
        chunks = len(self._chunks)
        return (self._layer + self._step / (2 * chunks)) / len(self._model.layers)

    def advance(self) -> bool:
        """Run the next chunk through half of its layer; return whether that was the last.

        A single chunk goes through all of a layer. The caches then hold all rows.
        """
        layer, chunks = self._model.layers[self._layer], len(self._chunks)
        if chunks == 1:
            self.hidden = [layer(self.hidden[0], self._chunks[0], self._layer)]
            self._layer += 1
        else:
            self._run_half(layer, self._step)
            self._step = (self._step + 1) % (2 * chunks)
            if self._step == 0:
                self._layer += 1
                if isinstance(layer.ffn, MoE):
                    layer.ffn.end_rows()
        if self._layer < len(self._model.layers):
            return False
        for batch in self._chunks:
            batch.commit()
        return True

    def _run_half(self, layer: Block, step: int) -> None:
        if step < len(self._chunks):
            halves = layer.halves(self.hidden.pop(0), self._chunks[step], self._layer)
            next(halves)
            self._begun.append(halves)
        else:
            self.hidden.append(finish(self._begun.pop(0)))
