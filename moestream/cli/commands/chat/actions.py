"""What the chat's commands do; their names and arguments are ``slash``'s."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from moestream import ui
from moestream.cli.commands.chat.adjust import Items
from moestream.cli.reports.streaming import StreamingReport
from moestream.errors import ChatUsageError

if TYPE_CHECKING:
    from moestream.chat.conversation import Conversation, Turn
    from moestream.cli.commands.chat.program import Program

_SHOWN_CHARACTERS = 60


def clear(program: "Program", argument: str) -> None:
    """Forget all turns."""
    program.dialogue.conversation.clear()
    program.keeper.begin_anew()
    program.dialogue.edited()
    program.screen.note("conversation cleared")


def undo(program: "Program", argument: str) -> None:
    """Take the last turn back."""
    turn = _last_turn(program)
    program.dialogue.conversation.undo()
    program.dialogue.edited()
    program.screen.note(f"took back: {_beginning(turn.user)}")


def retry(program: "Program", argument: str) -> None:
    """Have the last message answered anew; the old answer stays if that fails."""
    _answer_anew(program, _last_turn(program).user)


def edit(program: "Program", argument: str) -> None:
    """Change the last message in an editor and have it answered; or write the first one."""
    import click

    turns = program.dialogue.conversation.turns
    before = turns[-1].user if turns else ""
    try:
        text = click.edit(before, extension=".md")
    except click.ClickException as error:
        raise ChatUsageError(f"{error.message} ($VISUAL and $EDITOR say which editor)") from None
    if text is None or not text.strip() or text.rstrip("\n") == before:
        program.screen.note("nothing was changed")
    elif turns:
        _answer_anew(program, text.rstrip("\n"))
    else:
        program.say(text.rstrip("\n"))


def copy(program: "Program", argument: str) -> None:
    """Copy the last answer to the clipboard."""
    from moestream.terminal.clipboard import copy

    answer = _last_turn(program).answer or ""
    copy(answer)
    program.screen.note(f"copied the last answer, {len(answer):,} characters")


def _answer_anew(program: "Program", text: str) -> None:
    """Say a text in place of the last message; the old answer stays if that fails."""
    turn, dialogue = _last_turn(program), program.dialogue
    dialogue.conversation.undo()
    before = dialogue.answer
    try:
        program.say(text)
    finally:
        now = dialogue.answer
        if now is None or now is before or not now.kept:  # the old answer stays
            dialogue.conversation.turns.append(turn)
            dialogue.edited()


def stats(program: "Program", argument: str) -> None:
    """Tell speeds, context and what streaming did."""
    dialogue, show = program.dialogue, program.screen.fields
    answer, total, engine = dialogue.answer, dialogue.total, dialogue.engine
    if answer is not None:
        stats = answer.stats
        reading = [
            (
                "prompt",
                f"{answer.prompt_tokens} tokens, {answer.cached_tokens} of them kept "
                f"from before{ui.rate_told(stats.prompt_tps)}",
            ),
            ("answer", f"{stats.generated_tokens} tokens{ui.rate_told(stats.generation_tps)}"),
            *([("first token", f"after {stats.ttft_s:.2f} s")] if stats.generated_tokens else []),
            ("ended by", answer.stop_reason or "an error"),
        ]
        show("last answer", reading)
    used, length = dialogue.context_used, engine.context_length
    rows = [
        ("answers", f"{dialogue.answers}"),
        ("prompts", f"{total.prompt_tokens} tokens read{ui.rate_told(total.prompt_tps)}"),
        ("generated", f"{total.generated_tokens} tokens{ui.rate_told(total.generation_tps)}"),
        ("context", f"{used} of {length} tokens, {ui.format_memory(engine.kv_bytes(used))} of KV"),
    ]
    show("session", rows)
    outcome = StreamingReport.of(engine)
    if outcome is not None:
        show("experts", outcome.fields())


def save(program: "Program", argument: str) -> None:
    """Write the conversation."""
    from moestream.chat.conversation import Conversation
    from moestream.errors import ConversationError

    path = _path("save", argument)
    if path.exists():
        refusal = f"{path} exists and is no conversation: it is left as it is; pass another name"
        if not path.is_file():
            raise ChatUsageError(refusal)
        try:
            Conversation.load(path)
        except ConversationError:
            raise ChatUsageError(refusal) from None
    conversation = program.dialogue.conversation
    conversation.save(path, model=program.model)
    program.screen.note(f"saved {_turns(len(conversation.turns))} to {path}")


def load(program: "Program", argument: str) -> None:
    """Go on with a saved conversation."""
    from moestream.chat.conversation import Conversation

    path = _path("load", argument)
    loaded: Conversation = Conversation.load(path)
    program.keeper.begin_anew()
    program.dialogue.conversation = loaded
    program.dialogue.edited()
    program.screen.note(loaded_told(loaded, path))


def loaded_told(loaded: "Conversation", path: Path) -> str:
    """Say what the conversation is that has been loaded."""
    last = f"; the last: {_beginning(loaded.turns[-1].user)}" if loaded.turns else ""
    return f"loaded {_turns(len(loaded.turns))} from {path}{last}"


def profile(program: "Program", argument: str) -> None:
    """Keep which experts the chat has used."""
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


def complete_profile(program: "Program", typed: str) -> Items:
    """What can follow ``/profile``."""
    from moestream.profiles.names import profile_names

    return [("save ", "NAME"), *((f"save {name}", "replaces it") for name in profile_names())]


def drop(program: "Program", argument: str) -> None:
    """Forget the oldest turns."""
    dialogue = program.dialogue
    _last_turn(program)
    if argument and (not argument.isdecimal() or int(argument) < 1):
        raise ChatUsageError(f"/drop {argument}: expected how many turns, 1 or more")
    dropped = dialogue.make_room(int(argument) if argument else None)
    used, length = dialogue.context_used, dialogue.engine.context_length
    program.screen.note(
        f"forgot the oldest {_turns(dropped)}; "
        f"the conversation now takes {used:,} of {length:,} tokens"
    )


def model(program: "Program", argument: str) -> None:
    """Tell the model, or go on with another."""
    if not argument:
        program.screen.note(f"the model is {program.model}: {program.dialogue.engine.file.path}")
        return
    if program.recorded:
        raise ChatUsageError(
            "--trace and --save-profile are of one model: leave, and start with the other"
        )
    program.switch(argument)
    program.screen.note(f"the model is {program.model}; the conversation goes on")


def complete_model(program: "Program", typed: str) -> Items:
    """Names of the catalogue."""
    from moestream.catalog import catalog

    return [(spec.name, spec.description) for spec in catalog().values()]


def quit(program: "Program", argument: str) -> None:
    """Leave."""
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
