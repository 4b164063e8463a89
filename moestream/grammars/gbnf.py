"""GBNF, llama.cpp's notation for grammars, read.

What it becomes is ``gbnf_to_lark``'s. llguidance has a reader of its own, which misreads escapes
and classes such as ``[a~~b]``.

Source: llama.cpp, grammars/README.md and src/llama-grammar.cpp (``llama_grammar_parser``).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moestream.grammars.lark import literal
from moestream.grammars.limits import MOST_NESTED, MOST_RULE_LEVELS, MOST_RULES

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:(,)\s*(\d+)?\s*)?\}")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([tnr\"\\\[\]^-]))"
)
_LETTERS = {"t": "\t", "n": "\n", "r": "\r"}
_MOST_DIGITS = 6
_MOST = {"*": "*", "+": "+", "?": "?"}


class GbnfError(ValueError):
    """It is no GBNF."""


@dataclass(frozen=True, slots=True)
class Word:
    """A regular expression, or a text, as Lark has it."""

    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A use of a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these."""

    ways: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part several times; ``count`` as regular expressions have it."""

    part: "Node"
    count: str


Node = Word | Rule | Sequence | Choice | Repeat


def read_rules(text: str) -> dict[str, Node]:
    """Return a grammar's rules by their names; ``root`` is among them.

    Raises:
        GbnfError: it is no grammar, or too large.
    """
    rules = _Parser(text).rules()
    if "root" not in rules:
        raise GbnfError("there is no rule root")
    for name in {name for node in rules.values() for name in names(node)} - rules.keys():
        raise GbnfError(f"the rule {name} is used, but there is none of this name")
    if sum(map(_levels, rules.values())) > MOST_RULE_LEVELS:
        raise GbnfError(f"its rules together are nested deeper than {MOST_RULE_LEVELS} levels")
    return rules


def names(node: Node) -> Iterator[str]:
    """The names of the rules that are used, each as often as it is."""
    match node:
        case Rule(name):
            yield name
        case Repeat(part, _):
            yield from names(part)
        case Choice(nodes) | Sequence(nodes):
            for part in nodes:
                yield from names(part)


def _levels(node: Node) -> int:
    match node:
        case Repeat(part, _):
            return 1 + _levels(part)
        case Choice(nodes) | Sequence(nodes):
            return 1 + max(map(_levels, nodes), default=0)
    return 1


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nested = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(_LINES)
        while self._at < len(self._text):
            name = self._need(_NAME, "a rule's name")
            self._skip(_SPACE)
            self._expect("::=")
            self._skip(_LINES)
            if name in rules:
                raise GbnfError(f"the rule {name} is there twice")
            if len(rules) == MOST_RULES:
                raise GbnfError(f"there are more than {MOST_RULES} rules")
            rules[name] = self._choice(nested=False)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._fail("a line's end")
            self._skip(_LINES)
        return rules

    def _choice(self, *, nested: bool) -> Node:
        ways = [self._sequence(nested=nested)]
        while self._take("|"):
            self._skip(_LINES)
            ways.append(self._sequence(nested=nested))
        return ways[0] if len(ways) == 1 else Choice(tuple(ways))

    def _sequence(self, *, nested: bool) -> Node:
        parts: list[Node] = []
        space = _LINES if nested else _SPACE
        self._skip(space)
        while (part := self._part()) is not None:
            self._skip(space)
            while count := self._repetition():
                part = Repeat(part, count) if count != "{0,0}" else Sequence(())
                self._skip(space)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _part(self) -> Node | None:
        if self._take('"'):
            return Word(literal("".join(self._characters('"'))))
        if self._take("["):
            return self._class()
        if self._take("."):
            return Word("/(?s:.)/")
        if self._take("("):
            self._skip(_LINES)
            self._nested += 1
            if self._nested > MOST_NESTED:
                raise GbnfError(f"more than {MOST_NESTED} brackets are within each other")
            node = self._choice(nested=True)
            self._expect(")")
            self._nested -= 1
            return node
        if found := _NAME.match(self._text, self._at):
            self._at = found.end()
            return Rule(found[0])
        return None

    def _class(self) -> Node:
        negated = "^" if self._take("^") else ""
        parts: list[str] = []
        while not self._take("]"):
            first = last = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                self._fail("a range that goes up")
            parts.append(f"{_code(first)}-{_code(last)}")
        if not parts:
            self._fail("a character")
        return Word(f"/[{negated}{''.join(parts)}]/")

    def _characters(self, end: str) -> Iterator[str]:
        while not self._take(end):
            yield self._character()

    def _character(self) -> str:
        if self._at >= len(self._text):
            self._fail("more")
        if found := _ESCAPE.match(self._text, self._at):
            self._at = found.end()
            letter = found[4]
            if letter:
                return _LETTERS.get(letter, letter)
            code = int(found[1] or found[2] or found[3], 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                self._fail("a character's number")
            return chr(code)
        if self._text[self._at] == "\\":
            self._fail("an escape that is known")
        self._at += 1
        return self._text[self._at - 1]

    def _repetition(self) -> str:
        for mark, count in _MOST.items():
            if self._take(mark):
                return count
        found = _COUNT.match(self._text, self._at)
        if found is None:
            return ""
        least, comma, most = found.groups()
        most = (most or "") if comma else least
        if max(len(least), len(most)) > _MOST_DIGITS or (most and int(most) < int(least)):
            self._fail(f"a count of {_MOST_DIGITS} digits at most, or two that go up")
        self._at = found.end()
        return f"{{{int(least)},{most and int(most)}}}"

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _take(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        self._at += len(text) if taken else 0
        return taken

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._fail(text)

    def _need(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            self._fail(what)
            raise AssertionError
        self._at = found.end()
        return found[0]

    def _fail(self, wanted: str) -> None:
        line = self._text.count("\n", 0, self._at) + 1
        found = self._text[self._at : self._at + 20].partition("\n")[0]
        raise GbnfError(f"line {line}: {wanted} was expected, not {found!r}")


def _code(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"
