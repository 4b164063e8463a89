"""``moestream bench``: how fast prefill and decode are, as llama-bench tells it.

Owns the order of settings, and what a cold start is. What a repetition is, ``moestream.bench``
knows.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestream import ui
from moestream.cli.command import Command, option
from moestream.cli.opening import context_warning, linked, open_here_or_shared
from moestream.cli.options.bench import test_options, threads_option
from moestream.cli.options.engine import comparison_options
from moestream.cli.options.model_argument import model_argument
from moestream.cli.options.streaming import streaming_comparison
from moestream.cli.reports.bench import FORMATS, Row, Writer
from moestream.cli.reports.streaming import choices_told, warnings
from moestream.errors import RankError
from moestream.ranks.options import Sharing

if TYPE_CHECKING:
    from moestream.bench import Sample, Test, TokenSource
    from moestream.engine.engine import Engine
    from moestream.ranks.link import Link

EXAMPLES = """
moestream bench demo
moestream bench demo -p 0 -n 128 --budget 500M,700M,none
moestream bench model.gguf -p 512,2048 -n 64 -d 0,4096 -t 4,8 -r 3 -o json
moestream bench model.gguf -p 0 -pg 1024,128 --budget 8G --cold
"""
_IN_USE = 0.01
"""Share of a file that may stay in the page cache before a start is no cold one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured with every setting."""

    tests: tuple["Test", ...]
    repetitions: int
    source: "TokenSource"
    warm_up: bool
    cold: bool
    open: Callable[..., "Engine"]


@click.command(cls=Command, examples=EXAMPLES)
@model_argument(default="demo")
@test_options
@option(
    "-o",
    "--output",
    "format_name",
    section="Output",
    type=click.Choice(FORMATS),
    default="md",
    help="Write a table, or JSON, or JSON a line, or comma-separated values.",
)
@option("--json", "as_json", section="Output", is_flag=True, help="The same as -o json.")
@threads_option
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
    as_json: bool,
    threads: tuple[int, ...],
    openings: Mapping[str, dict[str, Any]],
    **engine_options: Any,
) -> None:
    """Measure tokens a second, of prefill (pp) and of decoding (tg).

    MODEL is a name from models.toml, hf:ORG/REPO[:QUANT|FILE], or a path to a .gguf file; the
    default is demo. Options, tests and fields have llama-bench's names. Where an option takes a
    list, all combinations are measured.
    """
    shapes = [(p, 0) for p in n_prompt if p] + [(0, n) for n in n_gen if n] + [*pairs]
    if not shapes:
        raise click.UsageError("-p 0 and -n 0 leave nothing to measure; give one of them, or -pg")
    from moestream.bench import Test
    from moestream.catalog import resolve

    options = {**engine_options, **next(iter(openings.values()))}
    link, options, sharing = linked(options)
    if cold and link is not None:
        raise RankError(
            f"--cold drops the file's pages on the first of {link.size} machines alone, so it "
            "would be no cold start of all; leave --cold out, or measure one machine"
        )
    engine_options = {name: options[name] for name in engine_options if name in options}
    with ui.progress() as progress:
        path = resolve(model, progress=progress)
    tests = tuple(Test(p, n, depth) for depth in n_depth for p, n in shapes)
    open_engine = partial(_open, link, model, sharing)
    plan = Plan(tests, repetitions, source, warm_up and not cold, cold, open_engine)
    engine_options["context_length"] = max(test.n_context for test in tests) + 1
    told: set[str] = set()
    compared = {"threads": len(threads) > 1, "budget": len(openings) > 1}
    shown = [name for name, several in compared.items() if several]
    names = [test.name for test in tests]
    form = "json" if as_json else format_name
    with Writer(form, names, shown, shared=link is not None) as writer:
        for count, (budget, opening) in itertools.product(threads or (None,), openings.items()):
            options = {**engine_options, **opening, "threads": count}
            for row in _measure(path, plan, options, told):
                writer.write(row.fields(budget))


def _open(
    link: "Link | None", model: str, sharing: Sharing, path: Path, options: dict[str, Any]
) -> "Engine":
    with ui.working("loading the model") as progress:
        return open_here_or_shared(link, model, path, options, sharing, progress)


def _measure(path: Path, plan: Plan, options: dict[str, Any], told: set[str]) -> Iterator[Row]:
    """All tests with one setting."""
    if plan.cold:
        for test in plan.tests:
            yield _cold(path, plan, test, options, told)
        return
    with _opened(plan.open, path, options, told) as engine:
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

    with _opened(plan.open, path, options, told, cold=True) as engine:
        samples.append(run(engine, test, Tokens(engine, plan.source), len(samples)))
        return Row.of(engine, test, samples, plan.cold, plan.source)


@contextmanager
def _opened(
    open_engine: Callable[..., "Engine"],
    path: Path,
    options: dict[str, Any],
    told: set[str],
    *,
    cold: bool = False,
) -> Iterator["Engine"]:
    """Open the model, its file's pages dropped first where that is wanted; tell what is chosen."""
    from moestream.streaming.memory import return_freed_memory

    return_freed_memory()  # so that every setting begins with the same
    if cold:
        _tell(told, ui.warning, _drop(path))
    with open_engine(path, options) as engine:
        _tell(told, ui.warning, *warnings(engine, options["streaming"]), context_warning(engine))
        _tell(told, ui.note, choices_told(engine))
        yield engine


def _drop(path: Path) -> str | None:
    """Drop the model's pages; say so if that cannot be done."""
    from moestream.gguf import GGUFFile
    from moestream.streaming.page_cache import drop_pages

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
