"""Options, each declared once: at the field of the dataclass that it fills.

A field's metadata says what an option is called, which values it takes and what it does. The
command line, the environment, config.toml, the chat's ``/set``, the server and docs/commands.md
are made from that. Imports the standard library alone, so that ``--help`` answers at once.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_KEY = "option"


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """What a field says of its option; ``flags`` are the command line's names, longest-known first.

    Numbers lie from ``least`` to ``most``, without ``least`` itself where it is ``above`` that.
    ``words`` are texts that stand for a value of their own, such as ``none``. ``rare`` options are
    listed by ``--help-all`` alone.
    """

    help: str
    kind: type
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: bool = False
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    default_told: str | None = None
    many: bool = False
    rare: bool = False
    parse_text: Callable[[str], Any] | None = None
    """Reads what is neither a number, a choice nor a switch; raises ValueError."""

    @property
    def expected(self) -> str:
        """Which values it takes, in words."""
        if self.choices:
            return f"one of {', '.join((*self.choices, *self.words))}"
        words = [word for word in self.words if not word.startswith("-")]
        told = "on or off" if self.kind is bool else self._numbers()
        return f"{' or '.join(words)}, or {told}" if words else told

    def _numbers(self) -> str:
        number = "a whole number" if self.kind is int else "a finite number"
        if self.least is None:
            return number
        number = number.replace("finite ", "")
        least = f"{number} {'above' if self.above else 'of'} {self.least:.10g}"
        if self.most is None:
            return least if self.above else f"{least} or more"
        return f"{least} {'and up ' if self.above else ''}to {self.most:.10g}"

    def parse(self, text: str) -> Any:
        """Read a value as a person writes it.

        Raises:
            ValueError: it is none; the message says what it is and what was expected.
        """
        if text in self.words:
            return self.words[text]
        if self.parse_text is not None:
            return self.parse_text(text)
        if self.kind is bool and text in ("on", "off", "true", "false"):
            return text in ("on", "true")
        if self.kind is str and (not self.choices or text in self.choices):
            return text
        try:
            value = self.kind(text) if self.kind in (int, float) else None
        except ValueError:
            value = None
        if value is None:
            raise ValueError(f"{text!r}, expected {self.expected}")
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """See that a value is one that the option takes.

        Raises:
            ValueError: it is not; the message says what it is and what was expected.
        """
        if self.many or value is None or (value in self.words.values() and value is not True):
            return
        if self.kind is bool or isinstance(value, bool):
            if not (self.kind is bool and isinstance(value, bool)):
                raise ValueError(f"{value!r}, expected {self.expected}")
            return
        good = not self.choices or value in self.choices
        if self.kind in (int, float):
            kinds = (int,) if self.kind is int else (int, float)
            good = isinstance(value, kinds) and math.isfinite(value)
            if good and self.least is not None:
                good = value > self.least if self.above else value >= self.least
            if good and self.most is not None:
                good = value <= self.most
        if not good:
            raise ValueError(f"{value!r}, expected {self.expected}")


@dataclass(frozen=True, slots=True)
class Declared:
    """A field and its option."""

    name: str
    default: Any
    option: OptionSpec

    @property
    def flag(self) -> str:
        """The long name by which people know it, without dashes."""
        long = (flag for flag in self.option.flags if flag.startswith("--"))
        return next(long, f"--{self.name.replace('_', '-')}").removeprefix("--")

    @property
    def flags(self) -> tuple[str, ...]:
        """All of its flags."""
        return self.option.flags or (f"--{self.flag}",)

    @property
    def told(self) -> str:
        """The default in words, or nothing where the help says it."""
        if self.option.default_told is not None:
            return self.option.default_told
        return "" if self.default in (None, (), False) else f"{self.default}"

    def parse(self, text: str) -> Any:
        """Read a value; see ``OptionSpec.parse``, whose message then begins with the name."""
        try:
            return self.option.parse(text)
        except ValueError as error:
            raise ValueError(f"{self.flag} is {error}") from None


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with an option; ``kind`` is the default's type, if not given.

    Of a tuple each element is given by itself, as text, and the option may be repeated.
    """
    several = isinstance(default, tuple)
    metadata = {"kind": str if several else type(default), "many": several, **metadata}
    return dataclasses.field(default=default, metadata={_KEY: OptionSpec(help, **metadata)})


def declared(of: type) -> dict[str, Declared]:
    """The options of a dataclass, by field."""
    fields = dataclasses.fields(of)
    return {f.name: Declared(f.name, f.default, f.metadata[_KEY]) for f in fields if f.metadata}


def check(values: Any) -> None:
    """See that all fields of a dataclass are what their options take.

    Raises:
        ValueError: one is not; it is named.
    """
    for name, each in declared(type(values)).items():
        try:
            each.option.check(getattr(values, name))
        except ValueError as error:
            raise ValueError(f"{name} is {error}") from None
