"""How much a model is to think before it answers, as its chat template is told.

Owns the names by which templates know it. Where reasoning begins and ends is ``reasoning``'s.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moestream.declare import option

if TYPE_CHECKING:
    from moestream.chat.reasoning import Markers

EFFORTS = ("none", "low", "medium", "high")
_OWN = ("messages", "tools", "add_generation_prompt", "special", "now")
"""What a template is told by others."""


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise ValueError(f'{text!r:.80}, expected a JSON object, as {{"enable_thinking": false}}')


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a user says of it; None leaves it to the template."""

    reasoning_effort: str | None = option(
        None,
        "How much the model thinks before it answers; auto is as its template has it.",
        kind=str,
        choices=EFFORTS,
        words={"auto": None},
        default_told="auto",
        rare=True,
    )
    chat_template_kwargs: Mapping[str, Any] | None = option(
        None,
        "Names and values for the chat template, as one JSON object.",
        kind=str,
        parse_text=_read_object,
        words={"{}": None},
        metavar="JSON",
        rare=True,
    )

    @property
    def is_off(self) -> bool:
        """Whether there is to be none."""
        return self.reasoning_effort == "none"

    def changed(self, effort: str | None, kwargs: Mapping[str, Any]) -> "Thinking":
        """The same, but for what a request says."""
        own = self.chat_template_kwargs or {}
        return Thinking(effort or self.reasoning_effort, {**own, **kwargs})

    def template_values(self) -> dict[str, Any]:
        """What the template is told, for ``ChatTemplate.render``."""
        values: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            # Templates know it by one of these names.
            values = dict.fromkeys(("enable_thinking", "thinking"), not self.is_off)
            values["thinking_mode"] = "disabled" if self.is_off else "enabled"  # MiniMax-M3
        if self.reasoning_effort is not None and not self.is_off:
            values["reasoning_effort"] = self.reasoning_effort
            # Kimi K3 has no medium.
            values["thinking_effort"] = "low" if self.reasoning_effort == "low" else "high"
        values |= self.chat_template_kwargs or {}
        return {name: value for name, value in values.items() if name not in _OWN}

    def ended(self, text: str, markers: "Markers | None") -> str:
        """A prompt whose template opens reasoning even where there is to be none: with its end."""
        if markers is None or not (self.is_off and opens_reasoning(text, markers)):
            return text
        return text + markers.close


def opens_reasoning(prompt: str, markers: "Markers | None") -> bool:
    """Whether a prompt has opened the reasoning, which the answer goes on with."""
    return markers is not None and prompt.rstrip().endswith(markers.open)
