"""Stores what sequences have read, and gives back the beginning of one that comes again.

Owns the thread that writes, and what is stored of a sequence. Works where keys and values lie in
blocks: not on the backend ``mlx``.
"""

import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from moestream.backends import BLOCK_POSITIONS
from moestream.backends.kv_blocks import BlockStore, BlockStores
from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import StorageError, UnsupportedModelError
from moestream.layers.cache import Cache
from moestream.prompt_cache.files import STATE, BlockFiles, folder_of_all
from moestream.prompt_cache.names import block_names, model_name
from moestream.prompt_cache.restoring import Restoring

MOST_BYTES = 8 << 30
"""Of all that is stored, where no other limit is given, and a tenth of the free disk is no less."""
_FREE_SHARE = 10
_QUEUED = 2
"""Sequences that wait to be written: where the disk is slower than answers, some are left out."""


def default_limit() -> int:
    """Bytes that all stored prompts may take together by default."""
    folder = folder_of_all()
    while not folder.exists():
        folder = folder.parent
    return min(MOST_BYTES, shutil.disk_usage(folder).free // _FREE_SHARE)


class PromptCache(Closing):
    """The stored prompts of one engine; ``close`` waits for what is being written."""

    def __init__(
        self,
        engine: Engine,
        limit_bytes: int | None = None,
        *,
        on_trouble: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Find the folder; ``on_trouble`` is told once why nothing more can be written.

        ``limit_bytes`` is of all that is stored, of all models; by default ``default_limit``.

        Raises:
            UnsupportedModelError: the backend's keys and values are not in blocks.
            StorageError: the folder cannot be made.
        """
        if not isinstance(engine.caches.stores, BlockStores):
            raise UnsupportedModelError(
                f"the backend {engine.backend.name} cannot store prompts; the backend 'cpu' can"
            )
        self._engine = engine
        self._on_trouble = on_trouble
        self.model = model_name(engine)
        """What tells what is stored of it from all else."""
        title = engine.file.path.name
        limit = default_limit() if limit_bytes is None else limit_bytes
        try:
            self.files = BlockFiles(self.model, title, limit)
        except OSError as error:
            raise StorageError(
                f"prompts cannot be stored in {folder_of_all()}: {error.strerror}; use "
                "--prompt-cache off"
            ) from None
        self._is_writing = True
        self._changed = threading.Condition()
        self._waiting: deque[tuple[list[str], Cache]] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="prompt cache", daemon=True)
        self._thread.start()

    def restore(
        self,
        tokens: Sequence[int],
        *,
        more_than: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> Cache | None:
        """Make a cache of the longest stored beginning of ``tokens``, if it is worth it.

        At least one token is left to be run. None where no more than ``more_than`` are stored, or
        where ``stop`` says so, which is asked after each step.
        """
        restoring = self.find(tokens, more_than=more_than)
        if restoring is None:
            return None
        while restoring.step():
            if stop():
                return None
        return restoring.finish()

    def find(self, tokens: Sequence[int], *, more_than: int) -> Restoring | None:
        """As ``restore``, for whoever has other things to do meanwhile."""
        names = list(self.names(tokens[:-1]))
        lengths = self.lengths(names, range(1, len(names) + 1))
        if not lengths or lengths[-1] * BLOCK_POSITIONS <= more_than:
            return None
        return self._restoring(names[: lengths[-1]], lengths, more_than)

    def names(self, tokens: Sequence[int]) -> Iterator[str]:
        """What the whole blocks of tokens are called."""
        return block_names(self.model, tokens)

    def lengths(self, names: Sequence[str], among: Iterable[int]) -> list[int]:
        """Of some lengths, in blocks of these names, those of which all is stored."""
        stored = next((n for n, name in enumerate(names) if not self.files.has(name)), len(names))
        found = [n for n in among if n <= stored]
        if self._engine.caches.recurrent:
            found = [n for n in found if self.files.has(names[n - 1] + STATE)]
        return found

    def _restoring(self, names: list[str], lengths: list[int], more_than: int) -> Restoring:
        """Begin to restore blocks; ``lengths`` are those to which it can be done."""
        return Restoring(self.files, self._engine.caches.new(), names, more_than)

    def save(self, tokens: Sequence[int], cache: Cache) -> None:
        """Have the whole blocks of a sequence written that are not stored yet; returns at once."""
        length = cache.length
        if not self._is_writing or length < BLOCK_POSITIONS:
            return
        # Whole blocks: a sequence that goes on need not copy the one that it writes to.
        whole = cache.nearest(length // BLOCK_POSITIONS * BLOCK_POSITIONS)
        self.put(list(self.names(tokens[:whole])), cache.fork(whole))

    def put(self, names: list[str], cache: Cache) -> None:
        """Have the blocks of a cache that nobody writes to written under these names."""
        with self._changed:
            if len(self._waiting) < _QUEUED and not self._closing:
                self._waiting.append((names, cache))
                self._changed.notify()

    def close(self, *, write: bool = True) -> None:
        """Write what waits, and end; or unless ``write``, end after one block at most."""
        if not write:
            self._is_writing = False
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                found = self._waiting.popleft()
            if not self._is_writing:
                continue
            try:
                self._write(*found)
            except OSError as error:
                self._is_writing = False
                self._on_trouble(f"prompts are not stored any more: {error.strerror}")

    def _write(self, names: list[str], cache: Cache) -> None:
        store = cache.store
        assert isinstance(store, BlockStore)
        for name, block in zip(names, store.blocks, strict=False):
            if not self._is_writing:
                return
            self.files.put(name, block.memory)
        for length, snapshot in cache.snapshots.items():
            blocks, within = divmod(length, BLOCK_POSITIONS)
            if not within and not self.files.has(names[blocks - 1] + STATE):
                arrays = [array for state in snapshot.states.values() for array in state]
                data = np.concatenate([array.reshape(-1) for array in arrays])
                self.files.put(names[blocks - 1] + STATE, data.view(np.uint8))
        self.files.touch(names)
