"""Makes a profile of a part of a held-out text, in a process of its own.

Of its own, since what a benchmark itself had in memory would count as the peak of every run.

    python scripts/bench/profile_text.py MODEL LANGUAGE BEGIN END PROFILE.json
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout


def profile_text(model: Path, language: str, part: tuple[int, int], path: Path) -> None:
    """Start this program for characters ``part`` of a language's text."""
    command = [sys.executable, __file__, str(model), language, *map(str, part), str(path)]
    subprocess.run(command, check=True)


def main() -> None:
    """Profile a text by prefill alone."""
    from moestream import Engine
    from moestream.tokenizer import Tokenizer
    from moestream.traces.recording import ProfileRecorder

    model, language, begin, end, path = sys.argv[1:]
    text = heldout.text(language)[int(begin) : int(end)]
    with (
        Engine.open(model, context_length=4096) as engine,
        ProfileRecorder(Path(path), engine) as made,
    ):
        tokens = Tokenizer.from_gguf(engine.file).encode(text)
        session = engine.session()
        session.forward(tokens, on_route=made.observer(session))


if __name__ == "__main__":
    main()
