"""How much faster answers come with tokens guessed ahead: an edit of a file, and prose.

python scripts/bench/draft.py MODEL [--draft none,ngram,auto] [--repeat 3] [--tokens 400]

Three tasks: a file of 200 lines that the model is to return with one function renamed, with what
it makes of that; the same with the answer that a model would give which can do it, whatever this
one says; and a story, sampled at temperature 1, which hardly repeats itself. All runs write the
same, which is checked; kinds of drafts alternate, and medians of speed are told with how many
guesses were right. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from moestream.chat.prompt import Prompt
from moestream.engine import session as sessions
from moestream.engine.drafts import Drafts
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.tokenizer import Tokenizer

SOURCE = Path(__file__).parents[1] / "oracle" / "fuzz_files.py"
LINES, OLD, NEW = 200, "damaged", "broken_copies"
ASK = f"Return this file with the function `{OLD}` renamed to `{NEW}`, and say nothing else."
STORY = "Tell a long story about a lighthouse keeper who finds a map."

_SHORT = 100
"""Tokens of a prompt that has nothing to copy: what it asks for is sampled."""

Task = tuple[list[int], list[int] | None]
"""A prompt, and the answer where it is given."""


class Dictated:
    """Takes a sampler's place: chooses what it is told, whatever the logits are."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        self._begin, self._answer = len(prompt), answer

    def __call__(self, *_: object, **__: object) -> Dictated:
        """Be the sampler that a session makes."""
        return self

    def sample(self, logits: object, history: Sequence[int]) -> int:
        """The next token."""
        return self._answer[len(history) - self._begin]


def tasks(engine: Engine, most: int) -> dict[str, Task]:
    """The tasks, by name."""
    tokenizer = Tokenizer.from_gguf(engine.file)
    text = "\n".join(SOURCE.read_text().splitlines()[:LINES])

    def prompt(message: str) -> list[int]:
        return Prompt(message).prepare(tokenizer, engine.file).tokens

    edit = prompt(f"{ASK}\n\n```python\n{text}\n```")
    answer = tokenizer.encode(f"```python\n{text.replace(OLD, NEW)}\n```")[:most]
    return {"edit": (edit, None), "edit, dictated": (edit, answer), "story": (prompt(STORY), None)}


def run(engine: Engine, task: Task, most: int) -> dict[str, Any]:
    """Write an answer; tell how fast."""
    prompt, answer = task
    session, temperature = engine.session(), 0.0 if len(prompt) > _SHORT else 1.0
    params = SamplingParams(temperature=temperature, seed=1, ignore_eos=answer is None)
    sampler = sessions.Sampler if answer is None else Dictated(prompt, answer)
    for _ in session.prefill(prompt):
        pass
    most = most if answer is None else len(answer)
    with patch.object(sessions, "Sampler", sampler):
        made = list(session.generate(prompt[len(session.tokens) :], params, max_tokens=most))
    stats = session.stats
    guessed = stats.drafted_tokens, stats.accepted_tokens
    return {"made": made, "tps": stats.generation_tps, "guessed": guessed}


def measure(engine: Engine, name: str, task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """All kinds of drafts on one task, in turn."""
    kinds, found = args.draft.split(","), {}
    for _ in range(args.repeat):
        for kind in kinds:
            engine.drafts = Drafts(kind)
            found.setdefault(kind, []).append(run(engine, task, args.tokens))
    made = {tuple(each["made"]) for runs in found.values() for each in runs}
    assert len(made) == 1, "drafts changed a token"
    speeds = {kind: median(each["tps"] for each in runs) for kind, runs in found.items()}
    told = {
        kind: {
            "tps": round(speeds[kind], 1),
            "ratio": round(speeds[kind] / speeds[kinds[0]], 3),
            "guessed": runs[-1]["guessed"][0],
            "right": runs[-1]["guessed"][1],
        }
        for kind, runs in found.items()
    }
    print(name, told, flush=True)
    return {"task": name, "tokens": len(made.pop()), "drafts": told}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", default="none,ngram,auto")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--budget")
    parser.add_argument("--task", help="one of them alone")
    args = parser.parse_args()
    with Engine.open(args.model, context_length=8192, budget=args.budget) as engine:
        found = [
            measure(engine, name, task, args)
            for name, task in tasks(engine, args.tokens).items()
            if args.task in (None, name)
        ]
    print(json.dumps({"model": args.model.name, "budget": args.budget, "tasks": found}))


if __name__ == "__main__":
    main()
