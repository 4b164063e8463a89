"""What the metadata says of streams that are mixed with each other."""

from moestream.layers.hyper import HyperShape
from moestream.models.keys import Keys


class MixedRows:
    """Part of the config of a model with such streams."""

    __slots__ = ()
    hyper: HyperShape
    hidden_size: int

    @property
    def row_size(self) -> int:
        """Of all streams."""
        return self.hyper.streams * self.hidden_size


def read_mixed(keys: Keys) -> dict[str, object]:
    """The streams, and the turns that Sinkhorn's iterations take."""
    return {
        "hyper": HyperShape(
            streams=keys.size("hyper_connection.count"),
            size=keys.positive("embedding_length"),
            eps=keys.number("attention.layer_norm_rms_epsilon"),
            least=keys.number("hyper_connection.epsilon"),
            most=2.0,
        ),
        "iterations": keys.positive("hyper_connection.sinkhorn_iterations"),
    }
