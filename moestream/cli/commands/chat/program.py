"""The chat as a program: lines are read, and are commands or turns, until the user leaves.

Owns the engine that is open and what is told around an answer. The commands are
``slash``'s; how anything looks is ``terminal``'s.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from moestream.cli.commands.chat.notes import OFFER, activity, end_notes
from moestream.cli.group import describe_os_error
from moestream.closing import Closing
from moestream.errors import ContextLengthError, MessageLengthError, MoestreamError, RankError

if TYPE_CHECKING:
    from moestream.chat.conversation import Conversation
    from moestream.chat.dialogue import Dialogue
    from moestream.chat.reasoning import Piece
    from moestream.chat.settings import Settings
    from moestream.cli.commands.chat.kept import Keeper
    from moestream.engine.engine import Engine
    from moestream.prompt_cache import PromptCache
    from moestream.terminal.screen import Screen, View
    from moestream.terminal.status import Status
    from moestream.traces.recording import ProfileRecorder

_TELL_S = 0.1
"""How often the status is made anew while an answer is."""


class Program(Closing):
    """One run of ``moestream chat``. A context manager: it closes the engine."""

    def __init__(
        self,
        open_engine: "Callable[[str], Engine]",
        model: str,
        conversation: "Conversation",
        settings: "Settings",
        run_command: "Callable[[Program, str], None]",
        *,
        chat_template: str | None = None,
        special: bool = False,
        recording: Mapping[str, Any] = MappingProxyType({}),
        keeper: "Keeper",
        open_prompt_cache: "Callable[[Engine], PromptCache | None]" = lambda engine: None,
        verbose: bool = False,
    ) -> None:
        """Open the model.

        ``run_command`` carries out lines that begin with a slash; ``recording`` is what
        ``Recording`` takes, for this model alone; ``keeper`` saves the conversation as it goes;
        ``open_prompt_cache`` opens what is on disk of a model's prompts; ``verbose`` tells how much
        of each prompt was kept.

        Raises:
            MoestreamError: it cannot be opened, or has no chat template.
            OSError: the trace cannot be written.
        """
        self.model = model
        self.recorded = any(path is not None for path in recording.values())
        self.leaving = False
        self.failed = False
        """Whether anything went wrong that was told."""
        self.keeper = keeper
        self.screen: Screen
        self._open_engine = open_engine
        self._open_prompt_cache = open_prompt_cache
        self._verbose = verbose
        self._run_command = run_command
        self._chat_template = chat_template
        self._special = special
        self._open = ExitStack()
        self.profile: ProfileRecorder | None
        """What the answers of this model used; None where it has no experts."""
        self.dialogue = self._start(model, conversation, settings, recording)

    def run(self, screen: "Screen") -> None:
        """Read and answer until the end; the conversation is saved after each line.

        Raises:
            KeyboardInterrupt: a signal that is to end the program.
        """
        from moestream.terminal.interrupt import Terminated

        self.screen = screen
        while not self.leaving:
            try:
                line = screen.read(self.status())
                if line is None:
                    return
                if line.strip():
                    self._handle(line)
                self._keep()
            except KeyboardInterrupt as error:
                if isinstance(error, Terminated) or not screen.stays:
                    raise
                screen.note("stopped")

    def say(self, text: str) -> None:
        """Put what the user said to the model and show its answer.

        Raises:
            MoestreamError, OSError: there is none, or not all of it.
            KeyboardInterrupt: a signal that is to end the program.
        """
        from moestream.terminal.interrupt import interruptible

        dialogue = self.dialogue
        with (
            interruptible(self.screen.stopping) as interrupt,
            self.screen.answering(dialogue.settings.reasoning) as view,
        ):
            told = 0.0
            for pieces in dialogue.ask(text, interrupt.is_wanted):
                writes = bool(pieces) and not self.screen.stays  # else the end can be told
                with interrupt.waiting() if writes else nullcontext():
                    for piece in pieces:
                        view.add(piece.kind, piece.text)
                if time.monotonic() - told >= _TELL_S:
                    self._tell(view, pieces)
                    told = time.monotonic()
        if interrupt.ends_program():
            raise interrupt.error()
        if (answer := dialogue.answer) is not None:
            for note in end_notes(dialogue, answer, verbose=self._verbose):
                self.screen.note(note)
        if interrupt.wanted and not self.screen.stays:
            raise interrupt.error()

    def switch(self, model: str) -> None:
        """Go on with another model, or where it cannot be opened with this one.

        Raises:
            MoestreamError, OSError: the other cannot be opened.
            KeyboardInterrupt: it took too long for someone.
        """
        from moestream.catalog import resolve
        from moestream.streaming.memory import keep_from_collector, return_freed_memory
        from moestream.terminal.interrupt import Terminated

        resolve(model)  # before this one is let go
        old = self.dialogue
        try:
            self._restart(model, old)
        except BaseException as error:  # Ctrl-C too
            self.leaving = True  # unless this one can be opened again
            if not isinstance(error, Terminated):
                self._restart(self.model, old)
                self.leaving = False
            raise
        finally:
            del old
            return_freed_memory()  # what the old model was made of
            keep_from_collector()
        self.model = model

    def _restart(self, model: str, old: "Dialogue") -> None:
        self._open.close()
        self.dialogue = self._start(model, old.conversation, old.settings)
        self.dialogue.edited()

    def status(self, activity: str = "") -> "Status":
        """What the status line tells now."""
        from moestream.terminal.status import Status

        dialogue = self.dialogue
        answer = dialogue.answer
        steps = 0 if answer is None else answer.stats.generation_steps
        return Status(
            model=Path(self.model).name,
            context_used=len(dialogue.session.tokens) if activity else dialogue.context_used,
            context_length=dialogue.engine.context_length,
            activity=activity,
            tps=answer.stats.generation_tps if answer is not None and steps else None,
            streamed=dialogue.streamed,
        )

    def close(self) -> None:
        """Save the conversation, and close the engine and what is recorded."""
        with self._open, self.keeper:
            self._keep()

    def _keep(self) -> None:
        self.keeper.save(self.dialogue.conversation, self.model)

    def _start(
        self,
        model: str,
        conversation: "Conversation",
        settings: "Settings",
        recorded: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Dialogue":
        from moestream.chat.dialogue import Dialogue
        from moestream.traces.recording import Recording

        with ExitStack() as stack:
            engine = stack.enter_context(self._open_engine(model))
            recording = stack.enter_context(Recording(engine, **recorded, counting=True))
            if (stored := self._open_prompt_cache(engine)) is not None:
                stack.enter_context(stored)
            dialogue = Dialogue(
                engine,
                conversation,
                settings,
                chat_template=self._chat_template,
                special=self._special,
                recording=recording,
                prompt_cache=stored,
            )
            self._open = stack.pop_all()
            self.profile = recording.profile
        return dialogue

    def _handle(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self._run_command(self, line)
            else:
                self.say(self._with_files(line))
        except MessageLengthError as error:
            self._fail(str(error))
        except ContextLengthError as error:
            self._fail(f"{str(error).rstrip('.')}; {OFFER}")
        except BrokenPipeError:
            raise
        except OSError as error:
            self._fail(describe_os_error(error))
        except RankError:
            raise
        except MoestreamError as error:
            self._fail(str(error))

    def _with_files(self, line: str) -> str:
        """A message with the files that it names; of what is piped in, no file is read."""
        from moestream.chat.attachments import with_files

        if not self.screen.stays:
            return line
        message, attached = with_files(line)
        for each in attached:
            self.screen.note(f"with {each.path}, {len(each.text):,} characters")
        return message

    def _fail(self, message: str) -> None:
        self.failed = True
        self.screen.error(message)

    def _tell(self, view: "View", pieces: "list[Piece]") -> None:
        if (answer := self.dialogue.answer) is not None:
            view.update(self.status(activity(answer, pieces)), answer.stats.generated_tokens)
