"""``moestream generate``: one prompt in, one text out.

Owns the order of a run and the JSON that it is reported as. Knows nothing of how text becomes
tokens (``prompt``, ``text``) or tokens become tokens (``engine``).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import EXIT_INTERRUPTED, Command, Option
from moestream.cli.opening import open_engine, tell_choices
from moestream.cli.options import engine_options, model_argument, sampling_options
from moestream.cli.prompt import Prompt, prompt_options, require_text
from moestream.cli.residency import Outcome, saved_fields
from moestream.cli.streaming import streaming_options

if TYPE_CHECKING:
    from moestream.engine import Engine
    from moestream.recording import ProfileRecorder
    from moestream.sampling import SamplingParams
    from moestream.session import Stats
    from moestream.text import TextStream

EXAMPLES = """
moestream generate -p "What is the capital of Italy?"
moestream generate demo -p "Once upon a time" --raw -n 100 --temp 0
moestream generate demo -p "Why is the sky blue?" --budget 500M -v
cat notes.txt | moestream generate model.gguf -sys "Summarise this." --json
"""


@dataclass(slots=True)
class Run:
    """What is known of a run so far: whenever it is interrupted, this can be reported."""

    model: str
    seed: int | None
    as_json: bool
    quiet: bool
    verbose: bool = False
    trace: Path | None = None
    guesses: Path | None = None
    save_profile: Path | None = None
    parts: list[str] = field(default_factory=list)
    backend: str | None = None
    cache_types: tuple[str | None, str | None] = (None, None)
    budget_bytes: int | None = None
    outcome: Outcome | None = None
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


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@prompt_options
@click.option(
    "-n",
    "--predict",
    "--n-predict",
    "predict",
    cls=Option,
    section="Output",
    type=click.IntRange(min=-2),
    default=-1,
    show_default=True,
    metavar="N",
    help="Tokens to generate at most; -1 goes on to the model's end or a full context.",
)
@click.option(
    "--stop",
    "-r",
    "--reverse-prompt",
    "stop",
    cls=Option,
    section="Output",
    multiple=True,
    metavar="TEXT",
    help="End before this text appears; may be given several times.",
)
@click.option(
    "--json", "as_json", is_flag=True, cls=Option, section="Output", help="Print one JSON object."
)
@click.option(
    "-q", "--quiet", is_flag=True, cls=Option, section="Output", help="Print the text alone."
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    cls=Option,
    section="Output",
    help="Tell how memory is divided, and what streaming did.",
)
@sampling_options
@engine_options
@streaming_options
@click.option(
    "--trace-guesses",
    cls=Option,
    section="Streaming",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what each layer would guess of the next one's routing, for simulate --guesses.",
)
@click.pass_context
def generate(
    ctx: click.Context,
    /,
    *,
    model: str,
    prompt: Prompt,
    predict: int,
    stop: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
    trace: Path | None,
    trace_guesses: Path | None,
    save_profile: Path | None,
    sampling: "SamplingParams",
    **engine_options: Any,
) -> None:
    """Answer a prompt, or continue a text.

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Only the generated text goes to standard output.
    """
    for text in stop:
        require_text(text, "--stop")
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other; pass one of them")
    run = Run(
        model,
        sampling.seed,
        as_json,
        quiet,
        verbose,
        trace,
        trace_guesses,
        save_profile,
    )
    try:
        with _open(run, engine_options) as engine:
            max_tokens = None if predict < 0 else predict
            try:
                _generate(run, engine, prompt, sampling, max_tokens, stop)
            finally:
                run.outcome = Outcome.of(engine)
    except KeyboardInterrupt:
        run.stop_reason = "interrupted"
    if run.stream is not None:
        run.emit(run.stream.finish())
    _report(run)
    if run.stop_reason == "interrupted":
        ctx.exit(EXIT_INTERRUPTED)


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
) -> None:
    from moestream.recording import Recording
    from moestream.text import TextStream
    from moestream.tokenizer import Tokenizer

    started = time.perf_counter()
    tokenizer = Tokenizer.from_gguf(engine.file)
    tokens = prompt.encode(tokenizer, engine.file)
    session = engine.session()
    run.load_s = engine.load_s + time.perf_counter() - started
    if not run.quiet:
        tell_choices(engine, run.seed, verbose=run.verbose)
    run.stats = session.stats
    run.stream = stream = TextStream(tokenizer, stop)
    with Recording(
        engine, trace=run.trace, guesses=run.guesses, profile=run.save_profile
    ) as recording:
        run.profile = recording.profile
        observer = recording.observer(session)
        for token in session.generate(
            tokens, sampling, max_tokens=max_tokens, end_ids=tokenizer.end_ids, on_route=observer
        ):
            run.emit(stream.add(token))
            if stream.stopped is not None:
                run.stop_reason = "stop"
                return
    run.stop_reason = session.stop_reason


def _report(run: Run) -> None:
    """End the text with a new line and tell what it took, or tell everything as JSON."""
    if run.as_json:
        ui.print_json(_as_json(run))
    elif run.parts and not run.parts[-1].endswith("\n"):
        ui.write_text("\n")
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
            f"ended by: {run.stop_reason}"
        )
    if run.verbose and stats is not None and (told := _work_told(stats)):
        ui.note(told)
    if run.verbose and run.outcome is not None:
        ui.note_fields("experts", run.outcome.fields())
    if run.profile is not None and run.profile.saved is not None:
        ui.note(f"{run.profile.saved.tokens} tokens profiled in {run.profile.path}")


def _work_told(stats: "Stats") -> str | None:
    """What the backend did for a token, beside the arithmetic, in one line."""
    work = stats.work_per_token
    if work is None:
        return None
    return (
        f"a token took {work['synchronisations']:.1f} synchronisations, "
        f"{work['operations']:.0f} kernels, {ui.format_bytes(int(work['copied_bytes']))} copied"
    )


def _as_json(run: Run) -> dict[str, Any]:
    from moestream.session import Stats

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
