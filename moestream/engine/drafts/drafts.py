"""What is drafted with, as was chosen, and what is known of it from answer to answer."""

from moestream.backends import Backend
from moestream.choices import DraftKind
from moestream.engine.drafts.drafting import Drafting, NgramDrafting, PayingDrafting
from moestream.engine.drafts.paying import Paying
from moestream.errors import UnsupportedModelError

_PRIOR = (0.3, 0.6, 0.85)
"""What part of guesses is thought to be right, by how many tokens were alike: few, some, many."""


class Drafts:
    """Makes the guesses of answers; one for all sessions of an engine."""

    def __init__(self, kind: DraftKind) -> None:
        self.kind = kind
        self.paying = Paying(_prior)

    @classmethod
    def of(cls, kind: DraftKind, backend: Backend) -> "Drafts":
        """What was chosen; ``auto`` is nothing on a backend where tokens could change.

        Raises:
            UnsupportedModelError: tokens could change, and it was not left to us.
        """
        if backend.keeps_bits or kind in ("none", "auto"):
            return cls(kind if backend.keeps_bits else "none")
        raise UnsupportedModelError(
            f"--draft {kind} does not work with --backend {backend.name}, whose numbers depend on "
            "how many tokens are run at once, so that a token could change; use --draft none"
        )

    def begin(self) -> Drafting | None:
        """The guesses of an answer that begins; None where none are wanted."""
        if self.kind == "none":
            return None
        return NgramDrafting() if self.kind == "ngram" else PayingDrafting(self.paying)


def _prior(alike: int) -> float:
    return _PRIOR[0 if alike < 4 else 1 if alike < 8 else 2]
