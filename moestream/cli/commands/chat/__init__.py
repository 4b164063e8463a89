"""``moestream chat``: a conversation with a model, on a terminal or in plain lines.

Owns the command's options and the choice between the two.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from moestream import __version__
from moestream.cli.command import EXIT_ERROR, Command, file_option, option
from moestream.cli.options.engine import engine_options, sampling_options
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import output_options, shown_options
from moestream.cli.options.prompt import (
    require_text,
    special_option,
    system_options,
    template_option,
)
from moestream.cli.options.prompt_cache import open_prompt_cache, prompt_cache_option
from moestream.cli.options.streaming import streaming_options

if TYPE_CHECKING:
    from moestream.chat.conversation import Conversation
    from moestream.cli.commands.chat.program import Program
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice
    from moestream.terminal.screen import Screen

EXAMPLES = """
moestream chat
moestream chat demo -sys "Answer in one sentence." --budget 500M
moestream chat --continue --reasoning hide --temp 0.6
printf 'Name a colour.\\nAnother one.\\n' | moestream chat demo -q
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@system_options
@template_option
@special_option
@option(
    "--continue",
    "go_on",
    section="Chat",
    is_flag=True,
    help="Go on with the last conversation.",
)
@file_option("--load", section="Chat", help="Go on with a saved conversation.")
@option(
    "--no-tui",
    section="Chat",
    is_flag=True,
    rare=True,
    help="Plain lines; so it is wherever standard input or output is no terminal.",
)
@prompt_cache_option
@shown_options
@output_options
@streaming_options
@engine_options
@sampling_options
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    *,
    model: str,
    system_prompt: str | None,
    chat_template: str | None,
    special: bool,
    reasoning: Any,
    reasoning_effort: str | None,
    chat_template_kwargs: dict[str, Any] | None,
    context_shift: bool,
    go_on: bool,
    load: Path | None,
    no_tui: bool,
    prompt_cache: int | None,
    max_tokens: int | None,
    stop: tuple[str, ...],
    quiet: bool,
    verbose: bool,
    recording: dict[str, Any],
    sampling: "SamplingChoice",
    **engine_options: Any,
) -> None:
    """Talk with a model; it remembers what was said.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. /help lists commands.
    """
    from moestream.cli.opening import advised, linked, open_engine, preset_system, tell_choices

    linked(engine_options)  # of several machines, the first alone has conversations
    _check(system_prompt, chat_template)
    if go_on and load is not None:
        raise click.UsageError("--continue and --load exclude each other; pass one of them")
    from moestream.chat.settings import Settings
    from moestream.chat.thinking import Thinking
    from moestream.cli.commands.chat.actions import loaded_told
    from moestream.cli.commands.chat.kept import Keeper, model_of, newest
    from moestream.cli.commands.chat.program import Program
    from moestream.cli.commands.chat.slash import run_command
    from moestream.engine.options import SamplingChoice

    thinking = Thinking(reasoning_effort, chat_template_kwargs)
    settings = Settings(
        sampling.over({}), max_tokens, stop, reasoning, context_shift, thinking, dict(sampling.said)
    )
    saved = newest() if go_on else load
    if saved is not None and ctx.get_parameter_source("model") is not ParameterSource.COMMANDLINE:
        model = model_of(saved) or model

    def open_and_tell(name: str) -> "Engine":
        engine = open_engine(name, engine_options, quiet=quiet)
        if not quiet:
            tell_choices(engine, settings.sampling.seed, verbose=verbose)
        settings.sampling, _ = advised(name, engine, SamplingChoice(settings.said), quiet=quiet)
        return engine

    with Program(
        open_and_tell,
        model,
        _conversation(saved, system_prompt, preset_system(model, None)),
        settings,
        run_command,
        chat_template=chat_template,
        special=special,
        recording=recording,
        keeper=Keeper(saved if go_on else None),
        open_prompt_cache=partial(open_prompt_cache, limit_bytes=prompt_cache, quiet=quiet),
        verbose=verbose,
    ) as program:
        screen = _screen(program, plain=no_tui, quiet=quiet)
        if saved is not None:
            screen.note(loaded_told(program.dialogue.conversation, saved))
        if program.keeper.held:
            screen.note("another chat goes on with it, so this one is saved as one of its own")
        program.run(screen)
    if program.failed and not screen.stays:
        ctx.exit(EXIT_ERROR)


def _conversation(
    saved: Path | None, system_prompt: str | None, preset: str | None
) -> "Conversation":
    from moestream.chat.conversation import Conversation

    if saved is None:
        return Conversation(preset if system_prompt is None else system_prompt or None)
    conversation: Conversation = Conversation.load(saved)
    if system_prompt is not None:
        conversation.system = system_prompt or None
    return conversation


def _check(system_prompt: str | None, chat_template: str | None) -> None:
    if chat_template is not None:
        require_text(chat_template, "--chat-template")


def _screen(program: "Program", *, plain: bool, quiet: bool) -> "Screen":
    from moestream.terminal.plain import PlainScreen
    from moestream.terminal.screen import can_draw

    if plain or not can_draw():
        return PlainScreen(quiet=quiet)
    # Not before: a line editor and a Markdown parser take a fifth of a second to import.
    from moestream.cli.commands.chat.slash import complete
    from moestream.folders import state_dir
    from moestream.terminal.rich_screen import RichScreen

    screen = RichScreen(lambda before: complete(program, before), state_dir() / "chat_history")
    if not quiet:
        name = Path(program.model).name
        screen.note(f"moestream {__version__}, {name}; /help lists commands, Ctrl-D leaves")
    return screen
