"""How much faster or slower answers come with guesses: without and with, in turn, on many texts.

python scripts/bench/draft_pairs.py MODEL [--draft auto] [--repeat 3] [--tokens 160]
    [--temperature 0,0.8] [--budget 700M] [--text story,code] [--seconds 85] [--seed 0]

For each text and temperature a prompt is read, and then its answer is written with `none` and with
the other kind in turn, first one and then the other beginning. What is told of a text are ratios
of the times that two neighbours took to write, none / other: 1 is as fast, 0.97 is 3 % slower.
Guesses' estimates are kept from answer to answer, as in a chat. Each turn has a seed of its own,
from `--seed` on: runs with others of them can be put together. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path
from statistics import geometric_mean, quantiles
from typing import Any

from draft import ASK, LINES, SOURCE, STORY

from moestream.chat.prompt import Prompt
from moestream.engine.drafts import Drafts
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.tokenizer import Tokenizer

CODE = "Write a Python class for a bank account with deposit, withdraw and a history. Only code."
LIST = "List the countries of Europe with their capitals, one a line."
TRANSLATION = "Translate into French: "
PASSAGE = (
    "The old lighthouse stood at the end of the pier. Every evening its keeper climbed the stairs, "
    "lit the lamp and wrote the weather into a book. Nobody read the book, but he wrote it anyway."
)
NAMES = ("story", "code", "edit", "list", "translation")


def prompts(engine: Engine) -> dict[str, list[int]]:
    """The texts' prompts, by name."""
    tokenizer = Tokenizer.from_gguf(engine.file)
    file = "\n".join(SOURCE.read_text().splitlines()[: LINES // 2])
    edit = f"{ASK}\n\n```python\n{file}\n```"
    asked = (STORY, CODE, edit, LIST, TRANSLATION + PASSAGE)
    made = (Prompt(text).prepare(tokenizer, engine.file).tokens for text in asked)
    return dict(zip(NAMES, made, strict=True))


class Pairs:
    """Writes one answer again and again from the same state."""

    def __init__(self, engine: Engine, tokens: int) -> None:
        self._engine, self._tokens = engine, tokens
        self._drafts = {"none": Drafts("none"), "other": engine.drafts}
        self.guessed = self.right = 0

    def ratio(self, prompt: list[int], temperature: float, seed: int, first: str) -> float:
        """None's time by the other's, for one answer written by both."""
        took, made = {}, {}
        if self._engine.streaming is not None:  # so that both find their experts where one left
            self._write("none", prompt, temperature, seed)  # them that has just written the same
        for kind in (first, "other" if first == "none" else "none"):
            made[kind], took[kind] = self._write(kind, prompt, temperature, seed)
        assert made["none"] == made["other"], "guesses changed a token"
        return took["none"] / took["other"]

    def _write(
        self, kind: str, prompt: list[int], temperature: float, seed: int
    ) -> tuple[list[int], float]:
        engine = self._engine
        engine.drafts = self._drafts[kind]
        session = engine.session()
        params = SamplingParams(temperature=temperature, seed=seed, ignore_eos=True)
        written = session.generate(prompt, params, max_tokens=self._tokens)
        made = [next(written)]
        started = time.perf_counter()
        made += written
        took_s = time.perf_counter() - started
        if kind == "other":
            self.guessed += session.stats.drafted_tokens
            self.right += session.stats.accepted_tokens
        return made, took_s


def measure(engine: Engine, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Ratios of all texts; rounds go over all of them, and stop where time is up."""
    texts, stop_at = prompts(engine), time.perf_counter() + args.seconds
    names = args.text.split(",") if args.text else NAMES
    cases = list(product(names, map(float, args.temperature.split(","))))
    runs = {case: Pairs(engine, args.tokens) for case in cases}
    ratios: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    for turn in range(args.seed, args.seed + args.repeat):
        for name, temperature in cases:
            if time.perf_counter() > stop_at:
                break
            first = ("none", "other")[turn % 2]
            pair = runs[name, temperature].ratio(texts[name], temperature, turn, first)
            ratios[name, temperature].append(pair)
    return [told(*case, ratios[case], runs[case]) for case in cases if ratios[case]]


def told(name: str, temperature: float, ratios: list[float], runs: Pairs) -> dict[str, Any]:
    """One text's numbers."""
    row = {
        "text": name,
        "temperature": temperature,
        "pairs": len(ratios),
        "quartiles": quartiles(ratios),
        "guessed": runs.guessed,
        "right": runs.right,
    }
    print(row, flush=True)
    return row | {"ratios": [round(each, 3) for each in ratios]}


def quartiles(ratios: list[float]) -> list[float]:
    """The three, or of one number that number."""
    found = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return [round(each, 3) for each in found]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", default="auto")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--temperature", default="0,0.8")
    parser.add_argument("--text", help="some of them: " + ",".join(NAMES))
    parser.add_argument("--seed", type=int, default=0, help="of the first turn")
    parser.add_argument("--budget")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so long")
    args = parser.parse_args()
    with Engine.open(
        args.model, context_length=4096, budget=args.budget, draft=args.draft
    ) as engine:
        found = measure(engine, args)
    every = [ratio for row in found for ratio in row["ratios"]]
    summary = {
        "model": args.model.name,
        "draft": args.draft,
        "budget": args.budget,
        "quartiles": quartiles(every),
        "mean": round(geometric_mean(every), 3),
        "texts": found,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
