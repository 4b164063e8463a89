"""What everything that must be closed has in common: it is its own context manager."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Closed when the ``with`` block that it was opened in ends, however that ends."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; to be called again does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
