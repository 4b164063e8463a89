"""What is done with a changed file: all that ``inspect``, ``plan`` and ``generate`` do with one.

Without their printing, and without measuring the machine.
"""

from __future__ import annotations

from pathlib import Path

from moestream.chat.template import ChatTemplate
from moestream.engine.engine import Engine
from moestream.errors import MoestreamError
from moestream.forecast.demand import read_demand
from moestream.forecast.support import unsupported_reason
from moestream.forecast.verdict import fit_of, plan_of
from moestream.gguf import GGUFFile
from moestream.models import summary
from moestream.streaming.memory import Memory
from moestream.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "use"]  # imported before memory is capped

TEXT = "ab <|x|> t99 é\n"


def use(path: Path, seed: int) -> tuple[str, str]:
    """``runs``, ``refused`` with the words for it, or what contradicts itself.

    Whatever else is raised, is wrong.
    """
    refusals = []
    for step in (_inspect, _plan, _generate):
        try:
            told = step(path, seed)
        except MoestreamError as error:
            told = str(error)
        if told is not None and "\n" in told:
            return "lines", told
        refusals.append(told)
    inspected, _, generated = refusals
    if generated is None:
        return ("runs", "") if inspected is None else ("contradiction", str(inspected))
    if inspected is None:
        return "promise", generated  # inspect says yes, generate says no
    return "refused", generated


def _inspect(path: Path, seed: int) -> str | None:
    with GGUFFile.open(path) as file:
        return summary.summarize(file, unsupported_reason(file)).unsupported_reason


def _plan(path: Path, seed: int) -> str | None:
    with GGUFFile.open(path) as file:
        if reason := summary.unsupported_reason(file):  # what has no tokenizer is planned too
            return reason
        fit_of(plan_of(file, Memory(1 << 33, 1 << 33, "here")))
        read_demand(file)
    return None


def _generate(path: Path, seed: int) -> str | None:
    backend = "reference" if seed % 4 == 0 else "cpu"
    with Engine.open(path, backend=backend, threads=None if seed % 4 == 0 else 1) as engine:
        tokenizer = Tokenizer.from_gguf(engine.file)
        ids = tokenizer.encode(TEXT) + tokenizer.encode_chat(tokenizer.guard(TEXT))
        tokenizer.decode(ids)
        session = engine.session()
        session.forward(ids[: max(1, min(3, engine.context_length - 1))] or [0])
        if engine.context_length > 1:
            session.forward([0])
    return None
