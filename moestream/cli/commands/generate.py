"""``moestream generate``: one prompt in, one text out.

Owns the order of a run and the JSON that it is reported as. Knows nothing of how text becomes
tokens (``prompt``, ``text``) or tokens become tokens (``engine``).
"""

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, interrupted_status
from moestream.cli.opening import open_engine, tell_choices
from moestream.cli.options.engine import engine_options, sampling_options
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option, output_options
from moestream.cli.options.prompt import Prompt, prompt_options
from moestream.cli.options.streaming import streaming_options
from moestream.cli.reports.streaming import StreamingReport, saved_fields
from moestream.errors import MoestreamError
from moestream.terminal.interrupt import Interrupt, interruptible

if TYPE_CHECKING:
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingParams
    from moestream.engine.session import Session, Stats
    from moestream.layers.moe import RouteObserver
    from moestream.tokenizer.text_stream import TextStream
    from moestream.traces.recording import ProfileRecorder

EXAMPLES = """
moestream generate -p "What is the capital of Italy?"
moestream generate demo -p "Once upon a time" --raw -n 100 --temp 0
moestream generate demo -p "Why is the sky blue?" --budget 500M -v
cat notes.txt | moestream generate model.gguf -p "Summarise this." --json
"""


@dataclass(slots=True)
class Run:
    """What is known of a run so far: whenever it is interrupted, this can be reported."""

    model: str
    seed: int | None
    as_json: bool
    quiet: bool
    verbose: bool = False
    parts: list[str] = field(default_factory=list)
    backend: str | None = None
    cache_types: tuple[str | None, str | None] = (None, None)
    budget_bytes: int | None = None
    outcome: StreamingReport | None = None
    profile: "ProfileRecorder | None" = None
    load_s: float = 0.0
    stats: "Stats | None" = None
    stream: "TextStream | None" = None
    stop_reason: str | None = None

    def emit(self, text: str) -> None:
        """Keep a piece of text, if there is any, and write it unless JSON is wanted."""
        if text:
            self.parts.append(text)
            if not self.as_json:
                ui.write_text(text)

    def end_text(self) -> None:
        """Write what was held back, and end the line."""
        if self.stream is not None:
            self.emit(self.stream.finish())
        if not self.as_json and self.parts and not self.parts[-1].endswith("\n"):
            ui.write_text("\n")


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@prompt_options
@output_options
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
    as_json: bool,
    quiet: bool,
    verbose: bool,
    recording: dict[str, Any],
    sampling: "SamplingParams",
    **engine_options: Any,
) -> None:
    """Answer a prompt, or continue a text.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Only the generated text goes to standard output.
    """
    run, status = Run(model, sampling.seed, as_json, quiet, verbose), 0
    try:
        with _open(run, engine_options) as engine:
            try:
                _generate(run, engine, prompt, sampling, max_tokens, stop, recording)
            finally:
                run.outcome = StreamingReport.of(engine)
    except KeyboardInterrupt as error:
        run.stop_reason, status = "interrupted", interrupted_status(error)
    except MoestreamError:
        run.end_text()
        raise
    run.end_text()
    _report(run)
    ctx.exit(status)


def _open(run: Run, options: dict[str, Any]) -> "Engine":
    engine = open_engine(run.model, options, quiet=run.quiet)
    run.backend = engine.backend.name
    run.cache_types = engine.kv_types
    run.budget_bytes = None if engine.plan is None else engine.plan.budget_bytes
    return engine


def _generate(
    run: Run,
    engine: "Engine",
    prompt: Prompt,
    sampling: "SamplingParams",
    max_tokens: int | None,
    stop: tuple[str, ...],
    recorded: dict[str, Any],
) -> None:
    from moestream.tokenizer import Tokenizer
    from moestream.tokenizer.text_stream import TextStream
    from moestream.traces.recording import Recording

    started = time.perf_counter()
    tokenizer = Tokenizer.from_gguf(engine.file)
    tokens = prompt.encode(tokenizer, engine.file)
    session = engine.session()
    began = time.perf_counter()
    run.load_s = engine.load_s + began - started
    if not run.quiet:
        tell_choices(engine, run.seed, verbose=run.verbose)
    run.stats = session.stats
    run.stream = stream = TextStream(tokenizer, stop)
    told = not run.quiet and ui.on_terminal()
    with (
        interruptible(_tell_stopping if told else lambda: None) as interrupt,
        Recording(engine, **recorded) as recording,
    ):
        run.profile = recording.profile
        observer = recording.observer(session)
        left = _prefill(run, session, tokens, engine.context_length, interrupt, observer)
        for token in (
            ()
            if interrupt.wanted
            else session.generate(
                left, sampling, max_tokens=max_tokens, end_ids=tokenizer.end_ids, on_route=observer
            )
        ):
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
    done = 0
    with ui.progress(quiet=run.quiet or not ui.on_terminal(), unit="tok") as progress:
        progress("reading the prompt", 0, len(tokens))
        for done in session.prefill(tokens, on_route=observer):
            progress("reading the prompt", done, len(tokens))
            if interrupt.wanted:
                break
    return tokens[done:]


def _tell_stopping() -> None:
    os.write(2, b"\nstopping\n")  # past Python's streams, one of which may be in use


def _report(run: Run) -> None:
    """Tell what it took, or everything as JSON."""
    if run.as_json:
        ui.print_json(_as_json(run))
    stats = run.stats
    if run.quiet:
        return
    if stats is None:
        ui.note(f"{run.stop_reason} before the model was loaded")
    else:
        ui.note(
            f"prompt {stats.prompt_tokens} tokens, {stats.prompt_tps:.1f} tok/s; "
            f"generated {stats.generated_tokens} tokens, {stats.generation_tps:.1f} tok/s; "
            f"first token after {stats.ttft_s:.2f} s, load {run.load_s:.2f} s; "
            f"{_end_told(run, stats)}"
        )
    if run.verbose and stats is not None and (told := _work_told(stats)):
        ui.note(told)
    if run.verbose and run.outcome is not None:
        ui.note_fields("experts", run.outcome.fields())
    if run.profile is not None and run.profile.saved is not None:
        ui.note(f"{run.profile.saved.tokens} tokens profiled in {run.profile.path}")


def _end_told(run: Run, stats: "Stats") -> str:
    """Why it ended, in words."""
    ends = {
        "end": "the model ended here",
        "length": f"stopped at {stats.generated_tokens} tokens (-n {stats.generated_tokens})",
        "context": "stopped because the context is full; -c makes it larger",
        "stop": "stopped before the text given with --stop",
        "interrupted": "interrupted",
    }
    return ends.get(run.stop_reason or "", "ended by an error")


def _work_told(stats: "Stats") -> str | None:
    """What the backend did for a token, beside the arithmetic, in one line."""
    work = stats.work_per_token
    if work is None:
        return None
    return (
        f"a token took {work['synchronisations']:.1f} synchronisations, "
        f"{work['operations']:.0f} kernels, {ui.format_memory(int(work['copied_bytes']))} copied"
    )


def _as_json(run: Run) -> dict[str, Any]:
    from moestream.engine.session import Stats

    stats = run.stats or Stats()
    return {
        "text": "".join(run.parts),
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "stop_reason": run.stop_reason,
        "timings": {
            "load_s": run.load_s,
            "ttft_s": stats.ttft_s,
            "prompt_tps": stats.prompt_tps,
            "generation_tps": stats.generation_tps,
        },
        "work_per_token": stats.work_per_token,
        "model": run.model,
        "backend": run.backend,
        "seed": run.seed,
        "cache_type_k": run.cache_types[0],
        "cache_type_v": run.cache_types[1],
        "budget_bytes": run.budget_bytes,
        "saved_profile": None if run.profile is None else saved_fields(run.profile),
        "residency": None if run.outcome is None else run.outcome.to_dict(),
    }
