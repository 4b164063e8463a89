"""A table of which a token needs a few rows: it is never loaded, its rows are read like experts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.gguf import Tensor
from moestream.layers.weights import Weights
from moestream.streaming.rows import RowCounts, RowReader, Rows, Table


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows of a table that are being read."""

    table: "RowTable"
    rows: Rows

    def take(self) -> Array:
        """Wait for them: (n, columns).

        Raises:
            ModelFormatError, StorageError: see ``Rows.take``.
        """
        return self.table.decode(self.rows.take())


class RowTable:
    """A matrix of a model's file, in any quantisation type."""

    def __init__(self, weights: Weights, name: str, columns: int) -> None:
        """Find it, of however many rows.

        Raises:
            ModelFormatError: there is none of rows of that length.
        """
        self.backend = weights.backend
        self._tensor = weights.rows(name, columns)
        self._info = weights.file.tensor_info(weights.prefix + name)
        self._file = weights.file
        self._reader: RowReader | None = None

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return self._tensor.shape[0]

    @property
    def counts(self) -> RowCounts:
        """What was read so far."""
        return RowCounts() if self._reader is None else self._reader.counts

    def begin(self, rows: NDArray[np.int64], tokens: int) -> Wanted:
        """Begin to read rows by number, of so many tokens; one may be asked for more than once.

        Raises:
            ModelNotFoundError, ModelFormatError: see ``RowReader``.
        """
        if self._reader is None:
            file, info = self._file, self._info
            self._reader = RowReader(
                Table(
                    file.shards[info.shard],
                    file.statuses[info.shard],
                    info.offset,
                    self._tensor.data.shape[1],
                )
            )
        return Wanted(self, self._reader.begin(rows, tokens))

    def decode(self, data: NDArray[np.uint8]) -> Array:
        """Numbers of rows as they lie in the file: (n, row_bytes) -> (n, columns)."""
        whole = self._tensor
        some = Tensor(whole.name, whole.type, (len(data), whole.shape[1]), data)
        table = self.backend.embedding(some)
        return self.backend.embed(table, np.arange(len(data), dtype=np.int32))
