"""The commands of the chat: one entry each, with what it does and how it is completed.

Owns their names, arguments and words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from moestream.chat.attachments import begun_name
from moestream.cli.commands.chat import actions, adjust
from moestream.errors import ChatUsageError

if TYPE_CHECKING:
    from moestream.cli.commands.chat.program import Program
    from moestream.terminal.line_editor import Candidates


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command; ``run`` gets all that follows its name, without space around it."""

    name: str
    arguments: str
    summary: str
    run: "Callable[[Program, str], None]"
    complete: "Callable[[Program, str], adjust.Items]" = lambda program, typed: ()
    """What may stand for the argument, given what is there of it."""
    files: bool = False
    """Whether the argument names a file."""
    aliases: tuple[str, ...] = ()


def run_command(program: "Program", line: str) -> None:
    """Carry out a line that begins with a slash.

    Raises:
        ChatUsageError: there is no such command, or it is not used so.
        MoestreamError, OSError, KeyboardInterrupt: what it does fails.
    """
    name, _, argument = line[1:].partition(" ")
    command = _BY_NAME.get(name.lower())
    if command is None:
        close = get_close_matches(name.lower(), _BY_NAME)
        hint = f"did you mean /{' or /'.join(close)}?" if close else "/help lists them"
        raise ChatUsageError(
            f"no command is called /{name}; {hint} (a line that begins with a space is a message)"
        )
    argument = argument.strip()
    if argument and not command.arguments:
        raise ChatUsageError(f"/{command.name} takes nothing after it, not {argument!r}")
    command.run(program, argument)


def complete(program: "Program", before: str) -> "Candidates | None":
    """What can be completed, given the text before the cursor; None where that is a message."""
    from moestream.terminal.line_editor import Candidates

    if not before.startswith("/") or "\n" in before:
        begun = begun_name(before)
        return None if begun is None else Candidates(len(begun), files=True)
    name, space, argument = before[1:].partition(" ")
    if not space:
        items = [(f"/{each.name}", each.summary) for each in COMMANDS if each.name.startswith(name)]
        return Candidates(len(before), items)
    command = _BY_NAME.get(name.lower())
    if command is None:
        return None
    items = [item for item in command.complete(program, argument) if item[0].startswith(argument)]
    return Candidates(len(argument), items, files=command.files)


def _help(program: "Program", argument: str) -> None:
    rows = [(f"/{each.name} {each.arguments}".strip(), each.summary) for each in COMMANDS]
    program.screen.fields("commands", rows)
    keys = [
        ("@FILE in a message", "sends the text of a file with it"),
        ("Alt-Enter, or \\ and Enter", "a new line in the message"),
        ("Ctrl-C", "stops the answer; at the prompt, clears the line, and pressed twice leaves"),
        ("Ctrl-D", "leaves"),
    ]
    program.screen.fields("keys", keys)
    program.screen.fields("this conversation", _kept(program))


def _kept(program: "Program") -> list[tuple[str, str]]:
    path = program.keeper.path
    if not program.keeper.works:
        return [("is not saved", "the disk refused; /save FILE writes it elsewhere")]
    kept = "after its first turn" if path is None else f"in {path}, after each turn"
    return [("is saved", kept), ("goes on", "with moestream chat --continue")]


COMMANDS = (
    ChatCommand("help", "", "this list", _help, aliases=("?",)),
    ChatCommand("clear", "", "forget all turns, not the system prompt", actions.clear),
    ChatCommand("undo", "", "take the last turn back", actions.undo),
    ChatCommand(
        "retry", "", "have the last message answered anew", actions.retry, aliases=("regen",)
    ),
    ChatCommand("edit", "", "change the last message in your editor, and send it", actions.edit),
    ChatCommand("copy", "", "copy the last answer to the clipboard", actions.copy),
    ChatCommand(
        "drop", "[N]", "forget the N oldest turns; alone, as many as make room", actions.drop
    ),
    ChatCommand(
        "system",
        "[TEXT]",
        "show or set the system prompt; none is without",
        adjust.system,
        lambda program, typed: [("none", "without one")],
    ),
    ChatCommand(
        "set",
        "[NAME VALUE]",
        "show or change settings",
        adjust.change_setting,
        adjust.complete_set,
    ),
    ChatCommand(
        "think",
        "[on|off|low|medium|high]",
        "show or change how much the model thinks",
        adjust.think,
        adjust.complete_think,
    ),
    ChatCommand("stats", "", "speeds, context and streaming", actions.stats),
    ChatCommand("save", "FILE", "write the conversation as JSON", actions.save, files=True),
    ChatCommand("load", "FILE", "go on with a saved conversation", actions.load, files=True),
    ChatCommand(
        "profile",
        "save NAME",
        "keep which experts this chat used, for --profile",
        actions.profile,
        actions.complete_profile,
    ),
    ChatCommand(
        "model",
        "[MODEL]",
        "show the model, or go on with another",
        actions.model,
        actions.complete_model,
        files=True,
    ),
    ChatCommand("quit", "", "leave", actions.quit, aliases=("exit", "bye")),
)
_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}
