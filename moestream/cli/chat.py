"""``moestream chat``: a conversation with a model, on a terminal or in plain lines.

Owns the command's options and the choice between the two.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import __version__
from moestream.cli.command import EXIT_ERROR, Command, Option
from moestream.cli.options import Body, engine_options, model_argument, sampling_options
from moestream.cli.output_options import output_options
from moestream.cli.prompt import require_text
from moestream.cli.streaming import streaming_options

if TYPE_CHECKING:
    from moestream.cli.chat_program import Program
    from moestream.engine import Engine
    from moestream.sampling import SamplingParams
    from moestream.terminal.screen import Screen

EXAMPLES = """
moestream chat
moestream chat demo -sys "Answer in one sentence." --budget 500M
moestream chat model.gguf --reasoning hide --temp 0.6
printf 'Name a colour.\\nAnother one.\\n' | moestream chat demo -q
"""


def _chat_option(*names: str, **kwargs: Any) -> Callable[[Body], Body]:
    return click.option(*names, cls=Option, section="Chat", **kwargs)


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@_chat_option("-sys", "--system-prompt", metavar="TEXT", help="Instructions that come first.")
@_chat_option(
    "--chat-template",
    metavar="NAME|FILE",
    help="A built-in template, or a jinja file, instead of the model's own.",
)
@_chat_option(
    "--reasoning",
    type=click.Choice(["show", "dim", "hide"]),
    default="dim",
    show_default=True,
    help="What is done with what a model thinks before it answers. In plain lines, dim writes it "
    "to standard error.",
)
@_chat_option(
    "--context-shift",
    is_flag=True,
    help="When the context is full, forget the oldest turns but not the system prompt.",
)
@_chat_option(
    "--no-tui",
    is_flag=True,
    help="Plain lines: each one read is a message or a command. So it is wherever standard input "
    "or output is no terminal.",
)
@output_options
@sampling_options
@engine_options
@streaming_options
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    *,
    model: str,
    system_prompt: str | None,
    chat_template: str | None,
    reasoning: Any,
    context_shift: bool,
    no_tui: bool,
    max_tokens: int | None,
    stop: tuple[str, ...],
    quiet: bool,
    verbose: bool,
    trace: Path | None,
    save_profile: Path | None,
    sampling: "SamplingParams",
    **engine_options: Any,
) -> None:
    """Talk with a model; it remembers what was said.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. /help lists what can be done besides talking.
    """
    _check(system_prompt, chat_template)
    from moestream.chat.conversation import Conversation
    from moestream.chat.settings import Settings
    from moestream.cli.chat_program import Program
    from moestream.cli.opening import open_engine, tell_choices

    settings = Settings(sampling, max_tokens, stop, reasoning, context_shift)

    def open_and_tell(name: str) -> "Engine":
        engine = open_engine(name, engine_options, quiet=quiet)
        if not quiet:
            tell_choices(engine, settings.sampling.seed, verbose=verbose)
        return engine

    with Program(
        open_and_tell,
        model,
        Conversation(system_prompt or None),
        settings,
        chat_template=chat_template,
        trace=trace,
        save_profile=save_profile,
    ) as program:
        screen = _screen(program, plain=no_tui, quiet=quiet)
        program.run(screen)
    if program.failed and not screen.stays:
        ctx.exit(EXIT_ERROR)


def _check(system_prompt: str | None, chat_template: str | None) -> None:
    if system_prompt:
        require_text(system_prompt, "the system prompt")
    if chat_template is not None:
        require_text(chat_template, "--chat-template")


def _screen(program: "Program", *, plain: bool, quiet: bool) -> "Screen":
    from moestream.terminal.plain import PlainScreen
    from moestream.terminal.screen import can_draw

    if plain or not can_draw():
        return PlainScreen(quiet=quiet)
    # Not before: a line editor and a Markdown parser take a fifth of a second to import.
    import platformdirs

    from moestream.cli.chat_commands import complete
    from moestream.terminal.rich_screen import RichScreen

    history = platformdirs.user_state_path("moestream") / "chat_history"
    screen = RichScreen(lambda before: complete(program, before), history)
    if not quiet:
        name = Path(program.model).name
        screen.note(f"moestream {__version__}, {name}; /help lists commands, Ctrl-D leaves")
    return screen
