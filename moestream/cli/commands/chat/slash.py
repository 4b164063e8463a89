"""The commands of the chat: one entry each, with what it does and how it is completed.

Owns their names, arguments and words.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from moestream import ui
from moestream.cli.reports.streaming import Outcome

if TYPE_CHECKING:
    from moestream.chat.conversation import Turn
    from moestream.cli.commands.chat.program import Program
    from moestream.terminal.prompt import Candidates

Items = Sequence[tuple[str, str]]
_SHOWN_CHARACTERS = 60


class ChatUsageError(Exception):
    """A command that does not exist, or not so."""


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """A command; ``run`` gets all that follows its name, without space around it."""

    name: str
    arguments: str
    summary: str
    run: "Callable[[Program, str], None]"
    complete: "Callable[[Program, str], Items]" = lambda program, typed: ()
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
    from moestream.terminal.prompt import Candidates

    if not before.startswith("/") or "\n" in before:
        return None
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
        ("Alt-Enter, or \\ and Enter", "a new line in the message"),
        ("Ctrl-C", "stops the answer; at the prompt, clears the line, and pressed twice leaves"),
        ("Ctrl-D", "leaves"),
    ]
    program.screen.fields("keys", keys)


def _clear(program: "Program", argument: str) -> None:
    count = len(program.dialogue.conversation.turns)
    program.dialogue.conversation.clear()
    program.dialogue.edited()
    program.screen.note(f"forgot {_turns(count)}")


def _undo(program: "Program", argument: str) -> None:
    turn = _last_turn(program)
    program.dialogue.conversation.undo()
    program.dialogue.edited()
    program.screen.note(f"took back: {_beginning(turn.user)}")


def _retry(program: "Program", argument: str) -> None:
    turn, dialogue = _last_turn(program), program.dialogue
    dialogue.conversation.undo()
    before = dialogue.answer
    try:
        program.say(turn.user)
    finally:
        now = dialogue.answer
        if now is None or now is before or not now.kept:  # the old answer stays
            dialogue.conversation.turns.append(turn)
            dialogue.edited()


def _system(program: "Program", argument: str) -> None:
    conversation = program.dialogue.conversation
    if not argument:
        system = conversation.system
        program.screen.note("no system prompt" if system is None else f"system prompt: {system}")
        return
    conversation.system = None if argument == "none" else argument
    program.dialogue.edited()
    program.screen.note("no system prompt" if argument == "none" else "system prompt set")


def _set(program: "Program", argument: str) -> None:
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


def _complete_set(program: "Program", typed: str) -> Items:
    from moestream.names import REASONING_STYLES

    values = {"reasoning": REASONING_STYLES, "context-shift": ("on", "off")}
    name, space, _ = typed.partition(" ")
    if space:
        return [(f"{name} {value}", "") for value in values.get(name, ())]
    return [(name, f"now {value}") for name, value in program.dialogue.settings.shown()]


def _stats(program: "Program", argument: str) -> None:
    dialogue, show = program.dialogue, program.screen.fields
    answer, total, engine = dialogue.answer, dialogue.total, dialogue.engine
    if answer is not None:
        stats = answer.stats
        reading = [
            (
                "prompt",
                f"{answer.prompt_tokens} tokens, {answer.cached_tokens} of them kept from before, "
                f"{stats.prompt_tps:.1f} tok/s",
            ),
            ("answer", f"{stats.generated_tokens} tokens, {stats.generation_tps:.1f} tok/s"),
            ("first token", f"after {stats.ttft_s:.2f} s"),
            ("ended by", answer.stop_reason or "an error"),
        ]
        show("last answer", reading)
    used, length = dialogue.context_used, engine.context_length
    rows = [
        ("answers", f"{dialogue.answers}"),
        ("prompts", f"{total.prompt_tokens} tokens read, {total.prompt_tps:.1f} tok/s"),
        ("generated", f"{total.generated_tokens} tokens, {total.generation_tps:.1f} tok/s"),
        ("context", f"{used} of {length} tokens, {ui.format_memory(engine.kv_bytes(used))} of KV"),
    ]
    show("session", rows)
    outcome = Outcome.of(engine)
    if outcome is not None:
        show("experts", outcome.fields())


def _save(program: "Program", argument: str) -> None:
    from moestream.chat.conversation import Conversation
    from moestream.errors import ConversationError

    path = _path("save", argument)
    if path.exists():
        try:
            Conversation.load(path)
        except ConversationError:
            raise ChatUsageError(
                f"{path} exists and is no conversation: it is left as it is; pass another name"
            ) from None
    conversation = program.dialogue.conversation
    conversation.save(path, model=program.model)
    program.screen.note(f"saved {_turns(len(conversation.turns))} to {path}")


def _load(program: "Program", argument: str) -> None:
    from moestream.chat.conversation import Conversation

    path = _path("load", argument)
    loaded: Conversation = Conversation.load(path)
    program.dialogue.conversation = loaded
    program.dialogue.edited()
    last = f"; the last: {_beginning(loaded.turns[-1].user)}" if loaded.turns else ""
    program.screen.note(f"loaded {_turns(len(loaded.turns))} from {path}{last}")


def _profile(program: "Program", argument: str) -> None:
    from moestream.profiles.names import profile_path

    verb, _, name = argument.partition(" ")
    if verb != "save" or not name.strip():
        given = f"/profile {argument}".strip()
        raise ChatUsageError(
            f"{given}: expected /profile save NAME; moestream profile has the rest"
        )
    path = profile_path(name.strip())
    if program.profile is None:
        raise ChatUsageError(f"{program.model} has no experts, so there is nothing to profile")
    if not program.dialogue.answers:
        raise ChatUsageError("nothing has been answered yet, so there is nothing to save")
    tokens = program.profile.save(path).tokens
    program.screen.note(
        f"saved what {tokens} tokens used to {path}; begin with it by --profile {name.strip()}"
    )


def _complete_profile(program: "Program", typed: str) -> Items:
    from moestream.profiles.names import profile_names

    return [("save ", "NAME"), *((f"save {name}", "replaces it") for name in profile_names())]


def _drop(program: "Program", argument: str) -> None:
    dialogue = program.dialogue
    _last_turn(program)
    if argument:
        if not argument.isdecimal() or int(argument) < 1:
            raise ChatUsageError(f"/drop {argument}: expected how many turns, 1 or more")
        dropped = dialogue.conversation.drop(int(argument))
        dialogue.edited()
    else:
        dropped = dialogue.make_room()
    used, length = dialogue.context_used, dialogue.engine.context_length
    program.screen.note(
        f"dropped the oldest: {_turns(dropped)}; {used} of {length} tokens left in use"
    )


def _model(program: "Program", argument: str) -> None:
    if not argument:
        program.screen.note(f"the model is {program.model}: {program.dialogue.engine.file.path}")
        return
    if program.recorded:
        raise ChatUsageError(
            "--trace and --save-profile are of one model: leave, and start with the other"
        )
    program.switch(argument)
    program.screen.note(f"the model is {program.model}; the conversation goes on")


def _complete_model(program: "Program", typed: str) -> Items:
    from moestream.catalog import catalog

    return [(spec.name, spec.description) for spec in catalog().values()]


def _quit(program: "Program", argument: str) -> None:
    program.leaving = True


def _last_turn(program: "Program") -> "Turn":
    turns = program.dialogue.conversation.turns
    if not turns:
        raise ChatUsageError("nothing has been said yet")
    return turns[-1]


def _path(command: str, argument: str) -> Path:
    if not argument:
        raise ChatUsageError(f"/{command} needs the name of a file")
    if argument[0] in "\"'":  # as a shell would have it
        try:
            argument = " ".join(shlex.split(argument))
        except ValueError as error:
            raise ChatUsageError(f"/{command} {argument}: {error}") from None
    try:
        return Path(argument).expanduser()
    except RuntimeError:  # no user of that name
        return Path(argument)


def _beginning(text: str) -> str:
    line = " ".join(text.split())
    cut = line[:_SHOWN_CHARACTERS]
    return f"{cut}..." if cut != line else line


def _turns(count: int) -> str:
    return f"{count} turn{'' if count == 1 else 's'}"


COMMANDS = (
    ChatCommand("help", "", "this list", _help, aliases=("?",)),
    ChatCommand("clear", "", "forget all turns, not the system prompt", _clear),
    ChatCommand("undo", "", "take the last turn back", _undo),
    ChatCommand("retry", "", "have the last message answered anew", _retry, aliases=("regen",)),
    ChatCommand("drop", "[N]", "forget the N oldest turns; alone, as many as make room", _drop),
    ChatCommand(
        "system",
        "[TEXT]",
        "show or set the system prompt; none is without",
        _system,
        lambda program, typed: [("none", "without one")],
    ),
    ChatCommand("set", "[NAME VALUE]", "show or change settings", _set, _complete_set),
    ChatCommand("stats", "", "speeds, context and streaming", _stats),
    ChatCommand("save", "FILE", "write the conversation as JSON", _save, files=True),
    ChatCommand("load", "FILE", "go on with a saved conversation", _load, files=True),
    ChatCommand(
        "profile",
        "save NAME",
        "keep which experts this chat used, for --profile",
        _profile,
        _complete_profile,
    ),
    ChatCommand(
        "model",
        "[MODEL]",
        "show the model, or go on with another",
        _model,
        _complete_model,
        files=True,
    ),
    ChatCommand("quit", "", "leave", _quit, aliases=("exit", "bye")),
)
_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}
