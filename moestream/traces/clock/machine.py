"""What a machine gives and what a model takes of it, in seconds. Plain numbers.

Knows nothing of where they come from: measured, foreseen or assumed.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ClockDisk:
    """One disk: a read begins ``latency_s`` after it is asked for, however many others there are.

    Bytes then come one read after another. ``threads`` read at once, in pieces.
    """

    latency_s: float
    bytes_per_s: float
    threads: int = 4
    piece_bytes: int = 512 << 10
    notice_s: float = 0.0
    """Until who waits for a read hears that it has ended."""
    spread: float = 0.0
    """Standard deviation of the time of one piece's bytes, as a part of that time."""
    piece_cpu_s: float = 0.0
    """Of a core, that each piece takes from the arithmetic; 0 where cores are left over."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds that one token's arithmetic takes, all experts in memory."""

    layer_s: float
    """Of a layer, beside its experts, up to what it asks for."""
    expert_s: float
    """Of one routed expert."""
    token_s: float = 0.0
    """Once a token: its logits, its choice."""
    guess_s: float = 0.0
    """Of guessing for one layer."""
    submit_s: float = 0.0
    """Of asking for one expert to be read."""
    wake_s: float = 0.0
    """More, in a layer that waited: threads that slept are not at once at work again."""

    def token_total_s(self, layers: int, experts_per_token: int) -> float:
        """Of a whole token, where nothing is waited for."""
        return self.token_s + layers * (self.layer_s + experts_per_token * self.expert_s)

    def scaled(self, factor: float) -> "Work":
        """So many times as long."""
        return replace(
            self, **{name: getattr(self, name) * factor for name in self.__dataclass_fields__}
        )
