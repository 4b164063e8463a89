"""What can be set of how answers are made and shown, also while a conversation goes on."""

import json
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from moestream.chat.thinking import Thinking
from moestream.choices import REASONING_STYLES, ReasoningStyle
from moestream.declare import Declared, declared, option
from moestream.engine.options import SamplingParams


@dataclass
class Settings:
    """How answers are made and shown; ``max_tokens`` None is no limit."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = option(
        None,
        "Tokens of an answer at most; -1 is no limit.",
        flags=("-n", "--predict", "--n-predict"),
        kind=int,
        least=0,
        words={"-1": None, "-2": None},
        default_told="-1",
        metavar="N",
    )
    stop: tuple[str, ...] = option(
        (),
        "End an answer before this text; may be repeated.",
        flags=("-r", "--stop", "--reverse-prompt"),
        metavar="TEXT",
    )
    reasoning: ReasoningStyle = option(
        "dim",
        "What a model thinks before it answers; in plain lines, dim is to standard error.",
        choices=REASONING_STYLES,
    )
    context_shift: bool = option(False, "Forget old turns where the context is full.")
    thinking: Thinking = field(default_factory=Thinking)
    said: dict[str, Any] = field(default_factory=dict, compare=False)
    """What of sampling the user chose, by field: advice counts for the rest alone."""

    def set(self, name: str, value: str) -> None:
        """Change one setting.

        Raises:
            ValueError: no such name, or no such value.
        """
        known = name.lower().replace("_", "-")
        each = _SETTABLE.get(_OTHER_NAMES.get(known, known))
        if each is None:
            close = get_close_matches(known, _SETTABLE)
            hint = f"did you mean {' or '.join(close)}?" if close else ", ".join(_SETTABLE)
            raise ValueError(f"nothing that can be set is called {name!r}; {hint}")
        if each.name in _SAMPLING:
            self.said[each.name] = each.parse(value)
            self.sampling = replace(self.sampling, **{each.name: self.said[each.name]})
        elif each.name in _THINKING:
            self.thinking = replace(self.thinking, **{each.name: each.parse(value)})
        else:
            setattr(self, each.name, each.parse(value))

    def shown(self) -> list[tuple[str, str]]:
        """Names and values as ``set`` takes them."""
        return [(name, self._told(each)) for name, each in _SETTABLE.items()]

    def _told(self, each: Declared) -> str:
        of = self.thinking if each.name in _THINKING else self
        value = getattr(self.sampling if each.name in _SAMPLING else of, each.name)
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, tuple):
            return ";".join(value)
        if isinstance(value, dict):
            return json.dumps(value)
        words = (word for word, meant in each.option.words.items() if meant is None)
        return next(words, "-1") if value is None else f"{value}"


_SAMPLING = declared(SamplingParams)
_THINKING = declared(Thinking)
_SETTABLE = {
    each.flag: each
    for each in (*_SAMPLING.values(), *declared(Settings).values(), *_THINKING.values())
    if not each.option.many
}
"""What can be set while a conversation goes on, by the long flag."""
_OTHER_NAMES = {
    flag.removeprefix("--"): name for name, each in _SETTABLE.items() for flag in each.flags
}
