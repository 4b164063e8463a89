"""``moestream profile save``: run a workload, or read a trace of one, and keep what it used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from moestream import ui
from moestream.chat.prompt import Prompt
from moestream.cli.command import Command, file_option, option
from moestream.cli.commands.profile.show import fields, summary
from moestream.cli.opening import advised
from moestream.cli.options.engine import engine_options, sampling_options
from moestream.cli.options.fields import Value
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.output import json_option
from moestream.cli.options.profile import file_callback, name_argument
from moestream.cli.options.prompt import read_text, require_text, special_option
from moestream.cli.options.streaming import budget_option
from moestream.cli.reports.streaming import warnings
from moestream.declare import OptionSpec

if TYPE_CHECKING:
    from moestream.engine.engine import Engine
    from moestream.engine.options import SamplingChoice, SamplingParams
    from moestream.profiles import Profile
    from moestream.tokenizer import Tokenizer
    from moestream.traces.recording import ProfileRecorder

EXAMPLES = """
moestream profile save italian demo -f articoli.txt --raw -n 0
moestream profile save chat demo -p "How are you?" -p "Tell me a story." -n 200
moestream profile save italian demo --trace run.route.csv.gz
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run: ``prompts`` one after another, each followed by ``predict`` tokens."""

    prompts: Sequence[Prompt]
    predict: int
    choice: "SamplingChoice"
    sampling: "SamplingParams"
    files: tuple[Path, ...]

    def options(self) -> dict[str, Any]:
        """What the profile's reader is told of it; no text."""
        return {
            "prompts": len(self.prompts),
            "files": [file.name for file in self.files],
            "raw": self.prompts[0].raw,
            "predict": self.predict,
            "temperature": self.sampling.temperature,
            "seed": self.sampling.seed,
        }


@click.command(cls=Command, examples=EXAMPLES)
@name_argument("path", metavar="NAME", callback=file_callback)
@model_argument(required=False)
@option(
    "-p",
    "--prompt",
    "texts",
    section="Workload",
    multiple=True,
    metavar="TEXT",
    help="A prompt; may be repeated.",
)
@file_option(
    "-f",
    "--file",
    "files",
    section="Workload",
    multiple=True,
    dash=True,
    help="A file with a prompt; - is standard input; may be repeated.",
)
@option(
    "--raw",
    section="Workload",
    is_flag=True,
    help="Continue texts as they are, long ones in parts.",
)
@option(
    "-n",
    "--predict",
    section="Workload",
    type=click.IntRange(min=0),
    default=64,
    metavar="N",
    help="Tokens to generate at most after each prompt: their routing counts too.",
)
@file_option(
    "--trace", section="Workload", help="Run nothing: take the routing of a run that was recorded."
)
@option(
    "--half-life",
    section="Workload",
    type=Value(OptionSpec("", float, least=1, most=1e9)),
    default=512,
    metavar="N",
    help="Tokens in which a use fades by half in the decayed counts.",
)
@special_option
@json_option
@sampling_options
@engine_options
@budget_option
@click.pass_context
def save(
    ctx: click.Context,
    /,
    *,
    path: Path,
    model: str | None,
    texts: tuple[str, ...],
    files: tuple[Path, ...],
    raw: bool,
    special: bool,
    predict: int,
    trace: Path | None,
    half_life: float,
    as_json: bool,
    sampling: "SamplingChoice",
    budget: str | None,
    **engine_options: Any,
) -> None:
    """Save which experts a workload uses.

    NAME is a new profile's name, or a path that ends in .json; one that is there is replaced.
    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. With --trace, it is only checked to be the trace's; without MODEL, a trace is
    taken at its word.
    """
    from moestream.profiles import require_place

    if bool(texts or files) == bool(trace):
        raise click.UsageError("give a workload, by -p and -f, or --trace: one of the two")
    require_place(path)
    if trace is not None:
        _reject_idle(ctx)
        saved = _from_trace(path, trace, model, half_life, as_json)
    else:
        prompts = [
            Prompt(text, raw=raw, special=special) for text in (*texts, *map(read_text, files))
        ]
        for prompt in prompts:
            require_text(prompt.text.strip() and prompt.text, "a prompt")
        work = Workload(prompts, predict, sampling, sampling.over({}), files)
        options = {"budget": None if budget == "none" else budget or "auto", **engine_options}
        saved = _from_run(path, model or "demo", work, half_life, options, as_json)
    if as_json:
        ui.print_json(summary(saved, path))
    else:
        ui.print_fields(str(path), fields(saved))


def _reject_idle(ctx: click.Context) -> None:
    """Reject options that say how a workload is run, where none is."""
    for param in ctx.command.params:
        given = param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
        if given and param.name not in ("path", "model", "trace", "half_life", "as_json"):
            raise click.UsageError(f"--trace runs nothing, so {param.opts[-1]} does nothing")


def _from_trace(
    path: Path, trace: Path, model: str | None, half_life: float, quiet: bool
) -> "Profile":
    from moestream.catalog import resolve
    from moestream.gguf import GGUFFile
    from moestream.profiles import Fingerprint, write_profile
    from moestream.traces.format import read_trace
    from moestream.traces.to_profile import count_trace

    with ui.working("reading the trace", quiet=quiet):
        counted = count_trace(read_trace(trace), path.stem, half_life=half_life)
    if model is not None:
        with ui.progress(quiet=quiet) as progress:
            file_path = resolve(model, progress=progress)
        with GGUFFile.open(file_path) as file:
            fingerprint = Fingerprint.of(file)
        counted.require(fingerprint, model)
        counted = replace(counted, fingerprint=fingerprint, model=file_path.name)
    return write_profile(counted, path)


def _from_run(
    path: Path, model: str, work: Workload, half_life: float, options: dict[str, Any], quiet: bool
) -> "Profile":
    from moestream.catalog import resolve
    from moestream.engine.engine import Engine
    from moestream.errors import ProfileError
    from moestream.tokenizer import Tokenizer
    from moestream.traces.recording import ProfileRecorder

    with ui.progress(quiet=quiet) as progress:
        file_path = resolve(model, progress=progress)
    with ui.working(f"loading {model}", quiet=quiet):
        engine = Engine.open(file_path, **options)
    with engine:
        for warning in () if quiet else warnings(engine, None):
            ui.warning(warning)
        work = replace(work, sampling=advised(model, engine, work.choice, quiet=quiet)[0])
        recorder = ProfileRecorder(path, engine, half_life=half_life, options=work.options())
        tokenizer = Tokenizer.from_gguf(engine.file)
        parts = list(_parts(work, engine, tokenizer))
        try:
            # What was counted is saved however this ends: a signal may come after an hour.
            with recorder, ui.progress(quiet=quiet) as progress:
                for done, tokens in enumerate(parts):
                    progress("running the workload", done, len(parts))
                    _run(engine, tokenizer, recorder, tokens, work)
        except KeyboardInterrupt:
            if recorder.saved is not None:
                ui.note(f"saved what {recorder.saved.tokens} tokens used by now to {path}")
            raise
    if recorder.saved is None:
        raise ProfileError(f"{path}: not written, for no token was routed")
    return recorder.saved


def _parts(work: Workload, engine: "Engine", tokenizer: "Tokenizer") -> Iterator[list[int]]:
    """Tokens of every prompt; a raw one too long for the context is cut."""
    room = max(engine.context_length - work.predict, 1)
    for prompt in work.prompts:
        tokens = prompt.prepare(tokenizer, engine.file).tokens
        step = room if prompt.raw else len(tokens)
        yield from (tokens[i : i + step] for i in range(0, len(tokens), max(step, 1)))


def _run(
    engine: "Engine",
    tokenizer: "Tokenizer",
    recorder: "ProfileRecorder",
    tokens: list[int],
    work: Workload,
) -> None:
    from moestream.chat.breakers import breakers_of

    session = engine.session()
    observe = recorder.observer(session)
    if not work.predict:
        for _ in session.generate(tokens, max_tokens=0, on_route=observe):
            pass  # not ``forward``, which keeps the logits of every token
        return
    made = session.generate(
        tokens,
        work.sampling,
        max_tokens=work.predict,
        end_ids=tokenizer.end_ids,
        breakers=breakers_of(work.sampling, tokenizer),
        on_route=observe,
    )
    for _ in made:
        pass
