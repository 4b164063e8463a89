"""Words that people know from other programs, and what they mean here.

Owns those words. What they lead to is read as if it had been typed.
"""

import os
import stat
import sys
from collections.abc import Callable, Sequence

import click

WORDS = {
    "ls": ("models", "list"),
    "list": ("models", "list"),
    "pull": ("models", "pull"),
    "rm": ("models", "rm"),
    "show": ("models", "info"),
    "version": ("--version",),
}
_ADVICE = {
    "ps": "nothing runs in the background here: a server shows what it does at /slots, and ends "
    "with Ctrl-C",
    "stop": "nothing runs in the background here: Ctrl-C ends a server or a chat",
    "create": "a model gets a name, and a preset, by: moestream models add NAME FILE",
    "push": "moestream publishes no models",
    "login": "set HF_TOKEN to reach what is not public on the hub",
}


def meant(args: list[str], is_prompt: Callable[[Sequence[str]], bool]) -> list[str]:
    """The arguments of the command line, as they are called here.

    Args:
        args: what was typed.
        is_prompt: whether what follows ``run`` has a prompt in it.

    Raises:
        click.UsageError: a word that there is nothing for here; it says what there is.
    """
    if not args:
        return args
    word, *rest = args
    if word == "help":
        return [*meant(rest, is_prompt), "--help"]
    if word == "run":
        return ["generate" if is_prompt(rest) or _is_piped() else "chat", *rest]
    if word in _ADVICE:
        raise click.UsageError(f"{word}: {_ADVICE[word]}")
    return [*WORDS.get(word, (word,)), *rest]


def _is_piped() -> bool:
    """Whether a whole text comes on standard input, as other programs take a prompt."""
    if sys.stdin is None:
        return False
    kind = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind)
