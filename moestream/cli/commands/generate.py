"""``moestream generate``: one prompt in, one text out.

Owns the order of a run. Knows nothing of how text becomes tokens (``prompt``, ``text_stream``),
how tokens follow tokens (``engine``), or what is told of a run (``reports``).
"""

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.chat.prompt import Prompt
from moestream.cli.command import Command, interrupted_status
from moestream.cli.opening import advised, linked, open_engine, preset_system, tell_choices
from moestream.cli.options.engine import engine_options, sampling_options
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option, output_options, reasoning_option
from moestream.cli.options.prompt import prompt_options
from moestream.cli.options.streaming import streaming_options
from moestream.cli.reports.generate import Run, report
from moestream.cli.reports.streaming import StreamingReport
from moestream.errors import MoestreamError
from moestream.terminal.interrupt import Interrupt, interruptible

if TYPE_CHECKING:
    from moestream.choices import ReasoningStyle
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice
    from moestream.engine.session import Session
    from moestream.layers.moe import RouteObserver

EXAMPLES = """
moestream generate demo "What is the capital of Italy?"
moestream generate demo -p "Once upon a time" --raw -n 100 --temp 0
moestream generate demo -p "Why is the sky blue?" --budget 500M -v
cat notes.txt | moestream generate model.gguf -p "Summarise this." --json
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@prompt_options
@output_options
@reasoning_option
@json_option
@streaming_options
@engine_options
@sampling_options
@click.pass_context
def generate(
    ctx: click.Context,
    /,
    *,
    model: str,
    prompt: Prompt,
    max_tokens: int | None,
    stop: tuple[str, ...],
    reasoning: "ReasoningStyle",
    as_json: bool,
    quiet: bool,
    verbose: bool,
    recording: dict[str, Any],
    sampling: "SamplingChoice",
    **engine_options: Any,
) -> None:
    """Answer a prompt, or continue a text.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Only the generated text goes to standard output.
    """
    from moestream.terminal.plain import PlainView

    linked(engine_options)  # of several machines, the first alone has a prompt
    if not prompt.raw:
        prompt = replace(prompt, system=preset_system(model, prompt.system))
    run, status = Run(model, sampling.said["seed"], as_json, quiet, verbose), 0
    run.view = None if as_json else PlainView("hide" if quiet and reasoning == "dim" else reasoning)
    try:
        with _open(run, engine_options) as engine:
            try:
                _generate(run, engine, prompt, sampling, max_tokens, stop, recording)
            finally:
                run.outcome = StreamingReport.of(engine)
                run.rows_per_token = engine.rows_per_token
    except KeyboardInterrupt as error:
        run.stop_reason, status = "interrupted", interrupted_status(error)
    except MoestreamError:
        run.end_text()
        raise
    run.end_text()
    report(run)
    ctx.exit(status)


def _open(run: Run, options: dict[str, Any]) -> "Engine":
    engine = open_engine(run.model, options, quiet=run.quiet)
    run.backend, run.draft = engine.backend.name, engine.drafts.kind
    run.cache_types = engine.kv_types
    run.budget_bytes = None if engine.plan is None else engine.plan.budget_bytes
    return engine


def _generate(
    run: Run,
    engine: "Engine",
    prompt: Prompt,
    choice: "SamplingChoice",
    max_tokens: int | None,
    stop: tuple[str, ...],
    recorded: dict[str, Any],
) -> None:
    from moestream.chat.breakers import breakers_of
    from moestream.chat.output import OutputParser, OutputStream
    from moestream.tokenizer import Tokenizer
    from moestream.traces.recording import Recording

    started = time.perf_counter()
    tokenizer = Tokenizer.from_gguf(engine.file)
    prepared = prompt.prepare(tokenizer, engine.file)
    tokens = prepared.tokens
    session = engine.session()
    began = time.perf_counter()
    run.load_s = engine.load_s + began - started
    if not run.quiet:
        tell_choices(engine, run.seed, verbose=run.verbose)
    sampling, run.advised = advised(run.model, engine, choice, quiet=run.quiet)
    run.stats = session.stats
    parser = OutputParser(None, prepared.markers, inside=prepared.inside)
    run.stream = stream = OutputStream(tokenizer, parser, stop)
    told = not run.quiet and ui.on_terminal()
    with (
        interruptible(_tell_stopping if told else lambda: None) as interrupt,
        Recording(engine, **recorded) as recording,
    ):
        run.profile = recording.profile
        observer = recording.observer(session)
        left = _prefill(run, session, tokens, engine.context_length, interrupt, observer)
        made = session.generate(
            left,
            sampling,
            max_tokens=max_tokens,
            end_ids=tokenizer.end_ids,
            breakers=breakers_of(sampling, tokenizer),
            on_route=observer,
            stop=interrupt.is_wanted,
        )
        for token in () if interrupt.wanted else made:
            if session.stats.generated_tokens == 1:
                session.stats.ttft_s = time.perf_counter() - began
            with interrupt.waiting():
                run.emit(stream.add(token))
            if stream.stopped is not None or interrupt.wanted:
                break
    if interrupt.wanted:
        raise interrupt.error()
    run.stop_reason = "stop" if stream.stopped is not None else session.stop_reason


def _prefill(
    run: Run,
    session: "Session",
    tokens: list[int],
    context: int,
    interrupt: Interrupt,
    observer: "RouteObserver | None",
) -> list[int]:
    """Run all of a prompt but its end, which is returned, and show how far it is."""
    if len(tokens) > context:
        return tokens  # which ``generate`` refuses before it begins
    with ui.progress(quiet=run.quiet or not ui.on_terminal(), unit="tok") as progress:
        progress("reading the prompt", 0, len(tokens))
        for done in session.prefill(tokens, on_route=observer, stop=interrupt.is_wanted):
            progress("reading the prompt", done, len(tokens))
            if interrupt.wanted:
                break
    return tokens[len(session.tokens) :]


def _tell_stopping() -> None:
    os.write(2, b"\nstopping\n")  # past Python's streams, one of which may be in use
