"""What is drafted with, as was chosen, and what is known of it from answer to answer."""

from collections.abc import Sequence

from moestream.backends import Backend, whole_blocks
from moestream.choices import DraftKind
from moestream.engine.drafts.drafting import (
    Drafting,
    FurtherDrafting,
    NgramDrafting,
    PayingDrafting,
)
from moestream.engine.drafts.mtp import Further
from moestream.engine.drafts.paying import Paying
from moestream.errors import UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.cache import Caches, state_bytes
from moestream.models import Decoder
from moestream.models.next_token import NextToken, further_bytes

_PRIOR = (0.3, 0.6, 0.85)
"""What part of guesses is thought to be right, by how many tokens were alike: few, some, many."""
_OWN_CHANCE = 0.6
"""The same of the model's own layer."""


class Drafts:
    """Makes the guesses of answers; one for all sessions of an engine."""

    def __init__(
        self, kind: DraftKind, layer: NextToken | None = None, caches: Caches | None = None
    ) -> None:
        """``mtp`` needs the ``layer``, and what makes the ``caches`` that it alone has.

        ``auto`` uses it where there is one.
        """
        self.kind = kind
        self.paying = Paying(_prior)
        self._layer, self._caches = layer, caches
        self.n_bytes = 0
        """Memory for what is read and kept beside the model, at most."""

    @classmethod
    def of(cls, kind: DraftKind, whole: GGUFFile, model: Decoder, caches: Caches) -> "Drafts":
        """What was chosen, for a model of a file; ``caches`` are the model's own.

        Raises:
            UnsupportedModelError: ``mtp``, of a file without a layer that predicts further tokens.
            ModelFormatError: that layer is not whole.
        """
        if kind not in ("mtp", "auto"):
            return cls(kind)
        n_bytes = further_bytes(whole, model.config)
        if not (model.predicts_further and n_bytes) or model.config.part is not None:
            if kind == "auto":
                return cls(kind)
            why = "has no such layer" if not n_bytes else f"is of {model.config.architecture}"
            raise UnsupportedModelError(
                f"--draft mtp needs a layer that predicts further tokens, and {whole.path.name} "
                f"{why}; use --draft ngram"
            )
        layer, capacity, kv_types = NextToken(whole, model), caches.capacity, caches.kv_types
        own = Caches(model.backend, [layer.shape], capacity=capacity, kv_types=kv_types)
        drafts = cls(kind, layer, own)
        drafts.n_bytes = n_bytes + state_bytes([layer.shape], whole_blocks(capacity), kv_types)
        return drafts

    def further(self) -> Further | None:
        """Follow a session's tokens, where guesses need that."""
        if self._layer is None or self._caches is None:
            return None
        return Further(self._layer, self._caches, eager=self.kind == "mtp")

    def without_layer(self) -> "Drafts":
        """The same without the model's own layer, whose memory others need more."""
        return Drafts(self.kind)

    def begin(self, further: Further | None, expected: Sequence[int] = ()) -> Drafting | None:
        """The guesses of an answer that begins; None where none are wanted.

        ``expected`` is what somebody says that it will be.
        """
        if self.kind == "none":
            return None
        if self.kind == "mtp":
            assert further is not None
            return FurtherDrafting(further)
        if self.kind == "ngram":
            return NgramDrafting(expected)
        return PayingDrafting(self.paying, further, expected)


def possible(kind: DraftKind, backend: Backend) -> DraftKind:
    """What was chosen; of ``auto`` nothing is left on a backend where tokens could change.

    Raises:
        UnsupportedModelError: tokens could change, and it was not left to us.
    """
    if backend.keeps_bits or kind == "none":
        return kind
    if kind == "auto":
        return "none"
    raise UnsupportedModelError(
        f"--draft {kind} does not work with --backend {backend.name}, whose numbers depend on how "
        "many tokens are run at once, so that a token could change; use --draft none"
    )


def _prior(alike: int) -> float:
    if not alike:
        return _OWN_CHANCE
    return _PRIOR[0 if alike < 4 else 1 if alike < 8 else 2]
