"""``moestream serve``: a model behind the HTTP APIs that clients already speak.

Owns the order of a run: the port opens, the model is loaded, a signal ends it. What is answered is
``server``'s.
"""

import os
import select
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.chat.thinking import Thinking
from moestream.cli.command import Command, interrupted_status
from moestream.cli.opening import advised, linked, open_engine, preset_system
from moestream.cli.options.engine import engine_options as engine_flags
from moestream.cli.options.engine import sampling_defaults
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import telling_options
from moestream.cli.options.prompt_cache import open_prompt_cache, prompt_cache_option
from moestream.cli.options.serve import prompt_options, server_options
from moestream.cli.options.streaming import streaming_options
from moestream.cli.reports.streaming import choice_fields, memory_told, plan_fields
from moestream.terminal.interrupt import interruptible

if TYPE_CHECKING:
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice
    from moestream.ranks.link import Link
    from moestream.server.listener import Listener
    from moestream.server.model import Model
    from moestream.server.options import ServerOptions
    from moestream.traces.recording import ProfileRecorder

_LOOK_S = 1.0
EXAMPLES = """
moestream serve demo
moestream serve qwen3-30b-a3b-instruct-2507 --port 9000 --budget 12G
moestream serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@server_options
@prompt_cache_option
@telling_options("Print errors alone.", "Tell all choices, and a line for each request.")
@streaming_options
@engine_flags
@sampling_defaults
@prompt_options
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    *,
    model: str,
    server: "ServerOptions",
    keys: tuple[str, ...],
    quiet: bool,
    verbose: bool,
    max_tokens: int | None,
    chat_template: str | None,
    special: bool,
    reasoning_effort: str | None,
    chat_template_kwargs: dict[str, Any] | None,
    prompt_cache: int | None,
    recording: dict[str, Any],
    sampling: "SamplingChoice",
    **engine_options: Any,
) -> None:
    """Serve a model to OpenAI's and llama-server's clients.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Ctrl-C ends it.
    """
    from moestream.server.listener import Listener
    from moestream.server.model import Defaults, Model
    from moestream.traces.recording import Recording

    _refuse_recording(recording)
    link, *_ = linked(engine_options)  # of several machines, the first alone has clients
    recorder: ProfileRecorder | None = None
    try:
        with Listener(server, keys, log=ui.note if verbose else None, warn=ui.warning) as listener:
            if verbose:
                ui.note(f"{listener.url}: loading {model}")
            with (
                open_engine(model, engine_options, quiet=quiet) as engine,
                open_prompt_cache(engine, prompt_cache, quiet=quiet) or nullcontext() as stored,
                Recording(engine, profile=recording["profile"]) as recorded,
                Model.of(
                    engine,
                    _names(model, engine, server),
                    server,
                    Defaults(
                        advised(model, engine, sampling, quiet=quiet)[0],
                        max_tokens,
                        special,
                        Thinking(reasoning_effort, chat_template_kwargs),
                        preset_system(model, None),
                    ),
                    chat_template=chat_template,
                    prompt_cache=stored,
                    on_route=recorded.profile.count if recorded.profile else None,
                ) as served,
            ):
                recorder = recorded.profile
                _tell(listener, served, verbose=verbose)
                listener.serve(served)
                _serve(listener, link)
    except KeyboardInterrupt as error:
        if recorder is not None and recorder.saved is not None:
            ui.note(f"{recorder.saved.tokens} tokens profiled in {recorder.path}")
        ctx.exit(interrupted_status(error))


def _serve(listener: "Listener", link: "Link | None") -> None:
    """Wait for a signal, and end the answers that are being written.

    Raises:
        KeyboardInterrupt: in the end, unless another machine fails.
        RankError: one has.
    """
    heard, hear = os.pipe()
    with interruptible(lambda: _wake(hear)) as interrupt:
        try:
            while not select.select([heard], [], [], _LOOK_S)[0]:
                listener.check()
                if link is not None:
                    link.check()
        finally:
            if link is not None:
                link.leave()  # else the answers end once the other machines have done their part
            listener.close()
            os.close(heard)
            os.close(hear)
    raise interrupt.error()


def _wake(pipe: int) -> None:
    os.write(pipe, b"!")


def _names(model: str, engine: "Engine", server: "ServerOptions") -> list[str]:
    """What requests may call the model, the first being what answers call it."""
    file = engine.file.path.name.removesuffix(".gguf")
    is_path = model.endswith(".gguf") or os.path.lexists(model)
    return [*server.alias, *([] if is_path else [model]), file]


def _tell(listener: "Listener", served: "Model", *, verbose: bool) -> None:
    """Say where the server is, and how the model runs."""
    engine = served.engine
    parallel = listener.state.options.parallel
    ui.note(
        f"{listener.url}: {served.name}, {memory_told(engine)}; context {engine.context_length}, "
        f"{parallel} at a time"
    )
    if verbose and engine.plan is not None:
        ui.note_fields("memory", plan_fields(engine.plan))
    if verbose and engine.streaming is not None:
        ui.note_fields("streaming", choice_fields(engine.streaming.choices))


def _refuse_recording(recording: dict[str, Any]) -> None:
    """A trace is of one session, and the scheduler has many at a time."""
    if any(value is not None for name, value in recording.items() if name != "profile"):
        raise click.UsageError(
            "serve records no traces, so --trace and --stream trace-... do nothing; use generate "
            "or chat"
        )
