"""What a guess of a model's own layer for further tokens costs, and from when on it pays.

python scripts/bench/synthetic.py vocabulary.gguf shape.gguf --shape qwen35moe --layers 8 --further
python scripts/bench/draft_own.py shape.gguf [--layers 40] [--context 256] [--repeat 20]

Milliseconds, medians: a pass of 1 to 5 tokens, and 1 to 4 guesses. What they would be with so many
`--layers` is reckoned from what the head takes. A guess pays where the tokens that a pass gives on
average, by the chance that one is right, are more than the time it takes by that of a pass without
guesses; that chance is told for each number of guesses. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from moestream.engine.drafts.mtp import Further
from moestream.engine.engine import Engine
from moestream.engine.session import Session

MOST = 4


def took_ms(repeat: int, before: Callable[[], object], work: Callable[[], object]) -> float:
    """The median of so many times."""
    found = []
    for _ in range(repeat):
        before()
        started = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - started))
    return median(found)


def passes(session: Session, length: int, repeat: int) -> list[float]:
    """A pass of 1 to 5 tokens after so many."""

    def run(rows: int) -> None:
        session._mark = length + 1
        session.forward([11, 23, 5, 7, 3][:rows])

    return [
        took_ms(repeat, lambda: session.truncate(length), lambda rows=rows: run(rows))
        for rows in range(1, MOST + 2)
    ]


def heads(engine: Engine, repeat: int) -> list[float]:
    """The head alone, for as many tokens."""
    rows = [engine.backend.zeros((n, engine.config.hidden_size)) for n in range(1, MOST + 2)]
    logits = engine.model.logits
    return [took_ms(repeat, lambda: None, lambda some=some: logits(some)) for some in rows]


def guesses(further: Further, tokens: list[int], repeat: int) -> list[float]:
    """1 to 4 guesses, the first of which has one row to be fed."""
    state = {}

    def before() -> None:
        further._rows, length = state["rows"], state["length"]
        further._cache.truncate(length)

    state["rows"] = further._rows[-1:]
    further.guess(tokens, 9, 1)
    state["length"] = further._cache.length - 1
    return [
        took_ms(repeat, before, lambda count=count: further.guess(tokens, 9, count))
        for count in range(1, MOST + 1)
    ]


def pays_from(costs: float, count: int) -> float | None:
    """The chance that a guess is right from which on ``count`` of them pay; None is never."""
    for chance in np.arange(0.0, 1.0001, 0.01):
        if sum(chance**n for n in range(count + 1)) >= costs:
            return round(float(chance), 2)
    return None


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=20)
    args = parser.parse_args()
    with Engine.open(args.model, context_length=2048, draft="mtp") as engine:
        prompt = np.random.default_rng(1).integers(0, 9999, args.context).tolist()
        session = engine.session()
        session.forward(prompt)
        assert session.further is not None
        guess = guesses(session.further, session.tokens, args.repeat)
        session.further = None
        run = passes(session, len(prompt), args.repeat)
        head = heads(engine, args.repeat)
        scale = args.layers / engine.config.num_layers
    found = {}
    for name, factor in (("here", 1.0), (f"{args.layers} layers", scale)):
        all_ms = [own + factor * (ms - own) for own, ms in zip(head, run, strict=True)]
        costs = [(all_ms[n] + guess[n - 1]) / all_ms[0] for n in range(1, MOST + 1)]
        found[name] = {
            "pass_ms": [round(ms, 2) for ms in all_ms],
            "costs": [round(each, 2) for each in costs],
            "pays_from": [pays_from(each, n) for n, each in enumerate(costs, 1)],
        }
    told = {"guess_ms": [round(ms, 2) for ms in guess], "head_ms": [round(ms, 2) for ms in head]}
    print(json.dumps({"model": args.model.name, "context": args.context, **told, **found}))


if __name__ == "__main__":
    main()
