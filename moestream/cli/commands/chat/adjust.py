"""What of a chat can be changed while it goes on: its system prompt, settings, thinking."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moestream.errors import ChatUsageError

if TYPE_CHECKING:
    from moestream.cli.commands.chat.program import Program

Items = Sequence[tuple[str, str]]
"""What may stand for an argument, each with what it means."""
_EFFORTS = {"on": "medium", "off": "none"}


def system(program: "Program", argument: str) -> None:
    """Show or set the system prompt."""
    conversation = program.dialogue.conversation
    if not argument:
        system = conversation.system
        program.screen.note("no system prompt" if system is None else f"system prompt: {system}")
        return
    conversation.system = None if argument == "none" else argument
    program.dialogue.edited()
    program.screen.note("no system prompt" if argument == "none" else "system prompt set")


def change_setting(program: "Program", argument: str) -> None:
    """Show or change settings."""
    settings = program.dialogue.settings
    name, _, value = argument.partition(" ")
    if not name:
        program.screen.fields("settings", settings.shown())
        return
    if not value.strip():
        raise ChatUsageError(f"/set {name} needs a value; /set alone shows those that there are")
    try:
        settings.set(name, value.strip())
    except ValueError as error:
        raise ChatUsageError(str(error)) from None
    shown = name.lower().replace("_", "-").replace("temperature", "temp")
    program.screen.note(f"{shown} is {dict(settings.shown())[shown]}")


def think(program: "Program", argument: str) -> None:
    """Show or change how much the model thinks."""
    settings = program.dialogue.settings
    if argument:
        try:
            settings.set("reasoning-effort", _EFFORTS.get(argument, argument))
        except ValueError:
            words = ", ".join(word for word, _ in complete_think(program, ""))
            raise ChatUsageError(f"/think {argument}: expected one of {words}") from None
    effort = settings.thinking.reasoning_effort
    told = {"none": "does not think", None: "thinks as its template has it"}
    note = told.get(effort, f"thinks, with {effort} effort")
    if program.dialogue.markers is None:
        note = "has no words for thinking, so this changes nothing"
    program.screen.note(f"the model {note}")


def complete_think(program: "Program", typed: str) -> Items:
    """How much it can be."""
    from moestream.chat.thinking import EFFORTS

    told = {"on": "as much as is usual", "off": "not at all", "auto": "as its template has it"}
    return [*told.items(), *((effort, "") for effort in EFFORTS if effort != "none")]


def complete_set(program: "Program", typed: str) -> Items:
    """Names of settings, and values where they are words."""
    from moestream.chat.thinking import EFFORTS
    from moestream.choices import REASONING_STYLES

    values = {
        "reasoning": REASONING_STYLES,
        "context-shift": ("on", "off"),
        "reasoning-effort": (*EFFORTS, "auto"),
    }
    name, space, _ = typed.partition(" ")
    if space:
        return [(f"{name} {value}", "") for value in values.get(name, ())]
    return [(name, f"now {value}") for name, value in program.dialogue.settings.shown()]
