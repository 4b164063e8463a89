"""``moestream bench``: how fast prefill and decode are, as llama-bench tells it.

Owns the lists of settings, their order, and what a cold start is. What a repetition is, ``bench``
knows; how rows are shown, ``bench_report``.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.bench_report import FORMATS, Row, Writer
from moestream.cli.command import Command, Option
from moestream.cli.options import Body, comparison_options, model_argument
from moestream.cli.residency import choices_told, warnings
from moestream.cli.streaming import streaming_comparison

if TYPE_CHECKING:
    from moestream.bench import Sample, Test, TokenSource
    from moestream.engine import Engine

EXAMPLES = """
moestream bench demo
moestream bench demo -p 0 -n 128 --budget 500M,700M,none
moestream bench model.gguf -p 512,2048 -n 64 -d 0,4096 -t 4,8 -r 3 -o json
moestream bench model.gguf -p 0 -pg 1024,128 --budget 8G --cold
"""
_IN_USE = 0.01
"""Share of a file that may stay in the page cache before a start is no cold one."""


def _counts(minimum: int) -> Callable[..., tuple[int, ...]]:
    """Read ``512,1024``, given once or several times."""

    def convert(
        ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
    ) -> tuple[int, ...]:
        parts = [part.strip() for text in texts for part in text.split(",")]
        if bad := [part for part in parts if not _is_count(part, minimum)]:
            raise click.BadParameter(
                f"{bad[0]!r} is not a whole number of at least {minimum}; several are separated "
                "by commas",
                ctx,
                param,
            )
        return tuple(dict.fromkeys(map(int, parts)))

    return convert


def _pairs(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Read ``512,128``, a prompt and what is decoded after it."""
    pairs = []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 2 or not all(_is_count(part, 1) for part in parts):
            raise click.BadParameter(
                f"{text!r} is not a pair of numbers of at least 1, such as 512,128", ctx, param
            )
        pairs.append((int(parts[0]), int(parts[1])))
    return tuple(dict.fromkeys(pairs))


def _is_count(text: str, minimum: int) -> bool:
    return text.isascii() and text.isdigit() and minimum <= int(text) < 2**31


def _option(*names: str, section: str, **kwargs: Any) -> Callable[[Body], Body]:
    return click.option(*names, cls=Option, section=section, **kwargs)


def _list(*names: str, default: str | None, minimum: int, help: str) -> Callable[[Body], Body]:
    return _option(
        *names,
        section="Engine" if "-t" in names else "Tests",
        multiple=True,
        default=() if default is None else (default,),
        show_default=default is not None,
        callback=_counts(minimum),
        metavar="N,...",
        help=help,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured with every setting."""

    tests: tuple["Test", ...]
    repetitions: int
    source: "TokenSource"
    warm_up: bool
    cold: bool


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@_list(
    *("-p", "--n-prompt"), default="512", minimum=0, help="Tokens of prompt; 0 measures no prefill."
)
@_list(
    *("-n", "--n-gen"), default="128", minimum=0, help="Tokens to decode; 0 measures no decoding."
)
@_option(
    "-pg",
    "pairs",
    section="Tests",
    multiple=True,
    callback=_pairs,
    metavar="PP,TG",
    help="A prompt and decoding after it, measured as one; may be given several times.",
)
@_list("-d", "--n-depth", default="0", minimum=0, help="Tokens of context before each test.")
@_option(
    "-r",
    "--repetitions",
    section="Tests",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    metavar="N",
    help="Times that each test is measured.",
)
@_option(
    "--warmup/--no-warmup",
    "warm_up",
    section="Tests",
    default=True,
    show_default=True,
    help="Run each test once, shortened, before it is measured.",
)
@_option(
    "--cold",
    section="Tests",
    is_flag=True,
    help="Begin each repetition as after a restart: the model opened anew, its file's pages "
    "dropped, no warm-up.",
)
@_option(
    "--tokens",
    "source",
    section="Tests",
    type=click.Choice(["text", "random"]),
    default="text",
    show_default=True,
    help="Run prose and what the model says to it, or random tokens as llama-bench does: those "
    "are routed to all experts alike.",
)
@_option(
    "-o",
    "--output",
    "format_name",
    section="Output",
    type=click.Choice(FORMATS),
    default="md",
    show_default=True,
    help="Write a table, or JSON, or JSON a line, or comma-separated values.",
)
@_list("-t", "--threads", default=None, minimum=1, help="CPU threads; by default one a core.")
@comparison_options
@streaming_comparison
def bench(
    model: str,
    n_prompt: tuple[int, ...],
    n_gen: tuple[int, ...],
    pairs: tuple[tuple[int, int], ...],
    n_depth: tuple[int, ...],
    repetitions: int,
    warm_up: bool,
    cold: bool,
    source: "TokenSource",
    format_name: str,
    threads: tuple[int, ...],
    openings: Mapping[str, dict[str, Any]],
    **engine_options: Any,
) -> None:
    """Measure tokens a second, of prefill (pp) and of decoding (tg).

    MODEL is a name from models.toml or a path to a .gguf file; the default is demo. Options and
    columns have llama-bench's names. Where an option takes a list, all combinations are measured.
    """
    shapes = [(p, 0) for p in n_prompt if p] + [(0, n) for n in n_gen if n] + [*pairs]
    if not shapes:
        raise click.UsageError("-p 0 and -n 0 leave nothing to measure; give one of them, or -pg")
    from moestream.bench import Test
    from moestream.catalog import resolve

    with ui.progress() as progress:
        path = resolve(model, progress=progress)
    tests = tuple(Test(p, n, depth) for depth in n_depth for p, n in shapes)
    plan = Plan(tests, repetitions, source, warm_up and not cold, cold)
    engine_options["context_length"] = max(test.n_context for test in tests) + 1
    told: set[str] = set()
    with Writer(format_name) as writer:
        for count, (budget, opening) in itertools.product(threads or (None,), openings.items()):
            options = {**engine_options, **opening, "threads": count}
            for row in _measure(path, plan, options, told):
                writer.write(row.fields(budget))


def _measure(path: Path, plan: Plan, options: dict[str, Any], told: set[str]) -> Iterator[Row]:
    """All tests with one setting."""
    if plan.cold:
        for test in plan.tests:
            yield _cold(path, plan, test, options, told)
        return
    with _opened(path, options, told) as engine:
        for test in plan.tests:
            yield _warm(engine, plan, test)


def _warm(engine: "Engine", plan: Plan, test: "Test") -> Row:
    from moestream.bench import Tokens, run, warm_up

    tokens, samples = Tokens(engine, plan.source), []
    if plan.warm_up:
        with ui.working(f"{test.name}, warming up"):
            warm_up(engine, test, tokens)
    for number in range(plan.repetitions):
        with ui.working(f"{test.name}, {number + 1} of {plan.repetitions}"):
            samples.append(run(engine, test, tokens, number))
    return Row.of(engine, test, samples, plan.cold, plan.source)


def _cold(path: Path, plan: Plan, test: "Test", options: dict[str, Any], told: set[str]) -> Row:
    samples: list[Sample] = []
    for number in range(plan.repetitions):
        with ui.working(f"{test.name} from a cold start, {number + 1} of {plan.repetitions}"):
            row = _repeat_cold(path, plan, test, options, told, samples)
    return row


def _repeat_cold(
    path: Path,
    plan: Plan,
    test: "Test",
    options: dict[str, Any],
    told: set[str],
    samples: "list[Sample]",
) -> Row:
    """Add one repetition. The engine ends with this call: its mapping would hold pages."""
    from moestream.bench import Tokens, run

    with _opened(path, options, told, cold=True) as engine:
        samples.append(run(engine, test, Tokens(engine, plan.source), len(samples)))
        return Row.of(engine, test, samples, plan.cold, plan.source)


@contextmanager
def _opened(
    path: Path, options: dict[str, Any], told: set[str], *, cold: bool = False
) -> Iterator["Engine"]:
    """Open the model, its file's pages dropped first where that is wanted; tell what is chosen."""
    from moestream.engine import Engine
    from moestream.experts.memory import return_freed_memory

    return_freed_memory()  # so that every setting begins with the same
    if cold:
        _tell(told, ui.warning, _drop(path))
    with ui.working("loading the model"):
        engine = Engine.open(path, **options)
    with engine:
        _tell(told, ui.warning, *warnings(engine, options["streaming"]))
        _tell(told, ui.note, choices_told(engine))
        yield engine


def _drop(path: Path) -> str | None:
    """Drop the model's pages; say so if that cannot be done."""
    from moestream.experts.page_cache import drop_pages
    from moestream.gguf import GGUFFile

    with GGUFFile.open(path) as file:
        shards, n_bytes = file.shards, file.n_bytes
    left = drop_pages(shards)
    if left <= _IN_USE * n_bytes:
        return None
    return (
        f"{path.name} stays in the page cache in part, for another process has it in use: this is "
        "no cold start; end that process first"
    )


def _tell(told: set[str], how: Callable[[str], None], *messages: str | None) -> None:
    """Tell what there is to tell and has not been told before."""
    for message in messages:
        if message and message not in told:
            told.add(message)
            how(message)
