"""The engine of the first rank: the first layers, and all that it asks the others to do."""

from dataclasses import replace
from typing import Any

import numpy as np

from moestream.engine.engine import Engine
from moestream.errors import ProfileError
from moestream.layers.cache import RecurrentShape
from moestream.profiles import Fingerprint, Profile
from moestream.ranks.coming import Away, Coming, Question
from moestream.ranks.far import FarLayers, Log, MirroredCaches
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message


class SharedEngine(Engine):
    """An engine with the first layers of a model of which other ranks have the rest."""

    link: Link | None = None
    away = Away()
    """What its rows took elsewhere."""
    _coming: Coming
    _whole: Fingerprint | None = None
    _log = Log()

    def share(self, link: Link, fingerprint: Fingerprint | None) -> None:
        """Send what leaves the layers here along a link; ``fingerprint`` is the whole model's."""
        config, log = self.config, Log()
        if config.part is None:
            raise ValueError("the engine has all layers; open it with a part of them")
        stop = config.part.stop
        far = config.state_shapes()[stop:]
        recurrent = any(isinstance(shape, RecurrentShape) and shape.arrays for shape in far)
        coming = Coming(link, self.backend)
        far_layers = FarLayers(link, self.backend, log, coming, recurrent=recurrent)
        self.model.layers[stop:], self.away = [far_layers, coming], coming.away
        self._coming = coming
        self.caches = MirroredCaches(self.caches, self.kv_types, log)
        self.link, self.machines = link, link.size
        self._log, self._whole = log, fingerprint

    def fingerprint(self) -> Fingerprint:
        """What tells the whole model from others.

        Raises:
            ProfileError: it has no experts.
        """
        if self._whole is None:
            raise ProfileError(f"{self.file.path}: has no experts, so there is nothing to profile")
        return self._whole

    def count_elsewhere(self, half_life: float) -> None:
        """Have the others count uses of their experts, from now on.

        Raises:
            RankError: one has failed.
        """
        if self.link is not None:
            self.link.send(Message(Kind.COUNT, {"half_life": half_life}))

    def counted_elsewhere(self, profile: Profile) -> Profile:
        """A profile with what the others have counted too.

        Raises:
            RankError: one has failed.
        """
        if self.link is None:
            return profile
        self.link.send(Message(Kind.COUNTS, {"found": [], "done": self._log.take()}))
        rows = {layer: row for row, layer in enumerate(profile.layers)}
        uses, decayed = profile.uses.copy(), profile.decayed.copy()
        for found in self.link.receive(Kind.COUNTS).body["found"]:
            here = [rows[layer] for layer in found["layers"]]
            uses[here] = np.array(found["uses"], np.int64)
            decayed[here] = np.array(found["decayed"], np.float64)
        return replace(profile, uses=uses, decayed=decayed)

    def tell(self, kind: Kind, **body: Any) -> None:
        """Have the others do something, after all that was done before.

        Raises:
            RankError: one has failed.
        """
        if self.link is not None:
            self.link.send(Message(kind, {"done": self._log.take(), **body}))

    def ask(self, kind: Kind, **body: Any) -> Question:
        """The same of something that they answer. Raises RankError: see ``tell``."""
        number, question = self._coming.question()
        self.tell(kind, n=number, **body)
        return question

    def hear(self, question: Question) -> dict[str, Any] | None:
        """Their answer, once it has come. Raises RankError: one has failed."""
        return self._coming.hear(question)

    def close(self) -> None:
        """Unmap the file here and there.

        Raises:
            RankError: a rank has failed, and nothing has said so yet.
        """
        link, self.link = self.link, None
        super().close()
        if link is not None:
            link.send(Message(Kind.CLOSE))
