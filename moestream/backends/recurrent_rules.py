"""What operations of layers whose memory does not grow take, besides what each token brings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends.types import Array


@dataclass(frozen=True, slots=True)
class Convolution:
    """The weights of a causal convolution a channel: ``kernel`` (C, w), the newest's the last.

    ``bias`` (C,) is added; with ``silu``, the sum y becomes ``y * sigmoid(y)``.
    """

    kernel: Array
    bias: Array | None = None
    silu: bool = False


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """The parameters of a gated delta-net layer that do not depend on the token.

    ``rates`` (H,), negative, and ``time_bias`` (H,) turn what a token asks into a decay.
    ``key_heads`` (H,) says which key head each value head goes with; ``dim`` is the size of both.
    """

    rates: Array
    time_bias: Array
    key_heads: NDArray[np.int32]
    num_key_heads: int
    dim: int
    eps: float


@dataclass(frozen=True, slots=True)
class MambaRule:
    """The parameters of a Mamba layer that do not depend on the token.

    ``rates`` (C, size), negative, and ``time_bias`` (C,) turn what a token asks into a step and
    decays; ``skips`` (C,) are what passes the state by.
    """

    rates: Array
    time_bias: Array
    skips: Array


@dataclass(frozen=True, slots=True)
class Mamba2Rule:
    """The parameters of a Mamba-2 layer that do not depend on the token.

    ``rates`` (H,), negative, and ``time_bias`` (H,) turn what a token asks into a step and a decay;
    ``skips`` (H,) are what passes the state by. Of ``groups`` of neighbouring heads, each has what
    writes and what reads, of ``size`` numbers, in common; a head has ``dim``.
    """

    rates: Array
    time_bias: Array
    skips: Array
    groups: int
    dim: int
    size: int
