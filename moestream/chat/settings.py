"""What can be set while a conversation goes on, by name and from text.

Owns the names, which are those of the command line's options, and their checks beyond
``SamplingParams``.
"""

import secrets
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Literal, get_args

from moestream.sampling import SamplingParams

ReasoningStyle = Literal["show", "dim", "hide"]

REASONING_STYLES: tuple[str, ...] = get_args(ReasoningStyle)
_SHORT = {"temperature": "temp"}


@dataclass(slots=True)
class Settings:
    """How answers are made and shown; ``max_tokens`` None is no limit."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    reasoning: ReasoningStyle = "dim"
    context_shift: bool = False

    def set(self, name: str, value: str) -> None:
        """Change one setting.

        Raises:
            ValueError: no such name, or no such value.
        """
        known = name.lower().replace("_", "-")
        known = _SHORT.get(known, known)
        if known not in self.names():
            close = get_close_matches(known, self.names())
            hint = f"did you mean {' or '.join(close)}?" if close else ", ".join(self.names())
            raise ValueError(f"nothing that can be set is called {name!r}; {hint}")
        if known == "reasoning":
            self.reasoning = _style(value)
        elif known == "context-shift":
            self.context_shift = _switch(value)
        elif known == "predict":
            count = int(_number(known, value, int))
            self.max_tokens = None if count < 0 else count
        else:
            self._set_sampling(known, value)

    def shown(self) -> list[tuple[str, str]]:
        """Names and values as ``set`` takes them."""
        values = [
            (_SHORT.get(each.name, each.name).replace("_", "-"), getattr(self.sampling, each.name))
            for each in fields(self.sampling)
        ]
        return [
            *((name, "-1" if value is None else f"{value}") for name, value in values),
            ("predict", "-1" if self.max_tokens is None else f"{self.max_tokens}"),
            ("reasoning", self.reasoning),
            ("context-shift", "on" if self.context_shift else "off"),
        ]

    def names(self) -> list[str]:
        """What can be set."""
        return [name for name, _ in self.shown()]

    def _set_sampling(self, name: str, value: str) -> None:
        attribute = {short: long for long, short in _SHORT.items()}.get(name, name)
        attribute = attribute.replace("-", "_")
        whole = attribute in ("top_k", "repeat_last_n", "seed")
        number = _number(name, value, int if whole else float)
        if attribute == "seed" and not 0 <= number < 2**32:
            if number != -1:
                raise ValueError(f"seed is {value}, expected 0 to {2**32 - 1}, or -1 to draw one")
            number = secrets.randbits(32)
        changed: dict[str, int | float] = {attribute: number}
        self.sampling = replace(self.sampling, **changed)  # type: ignore[arg-type]


def _number(name: str, value: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r}, expected {expected}") from None


def _style(value: str) -> ReasoningStyle:
    for style in get_args(ReasoningStyle):
        if value == style:
            return style  # type: ignore[no-any-return]
    raise ValueError(f"reasoning is {value!r}, expected {', '.join(REASONING_STYLES)}")


def _switch(value: str) -> bool:
    if value not in ("on", "off"):
        raise ValueError(f"context-shift is {value!r}, expected on or off")
    return value == "on"
