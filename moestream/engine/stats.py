"""What a session did, and how long that took."""

from dataclasses import asdict, dataclass, field
from typing import Literal

from moestream.backends import Work

StopReason = Literal["end", "length", "context", "interrupted"]


@dataclass(slots=True)
class TokenTimes:
    """Tokens that were read and made, and the time that this took."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prompt_s: float = 0.0
    generation_s: float = 0.0


@dataclass(slots=True)
class Stats(TokenTimes):
    """Counts and times of one session; speeds are derived."""

    generation_steps: int = 0
    ttft_s: float = 0.0
    drafted_tokens: int = 0
    """Tokens that were guessed and run."""
    accepted_tokens: int = 0
    """Those of them that were right."""
    work: Work = field(default_factory=Work)
    """What the backend did in all generation steps, if it counts that."""

    def add(self, other: "Stats") -> None:
        """Add another session's; the time to a first token is of one alone."""
        self.prompt_tokens += other.prompt_tokens
        self.prompt_s += other.prompt_s
        self.generated_tokens += other.generated_tokens
        self.generation_s += other.generation_s
        self.generation_steps += other.generation_steps
        self.drafted_tokens += other.drafted_tokens
        self.accepted_tokens += other.accepted_tokens

    @property
    def work_per_token(self) -> dict[str, float] | None:
        """The backend's work of a generation step on average; None if it counts none."""
        if not self.work.synchronisations:
            return None
        return {name: n / self.generation_steps for name, n in asdict(self.work).items()}

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generation_tps(self) -> float:
        """Tokens decoded a second: an end token counts, the first, which prefill made, does not."""
        return self.generation_steps / self.generation_s if self.generation_s else 0.0
