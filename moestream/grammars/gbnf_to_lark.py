"""GBNF's rules as llguidance's.

A rule that leads back to itself becomes a rule of the parser; all others, and what stands beside
such rules, become words of its lexer, which are regular expressions. A word is as long as it can
be, so beside a rule that leads back to itself fewer texts may fit than llama.cpp allows, never
more.
"""

from collections.abc import Iterator

from moestream.grammars.gbnf import (
    Choice,
    GbnfError,
    Node,
    Repeat,
    Rule,
    Sequence,
    Word,
    names,
    read_rules,
)


def to_lark(text: str) -> str:
    """Return the same grammar in Lark.

    Raises:
        GbnfError: it is none, or has a rule that never ends.
    """
    rules = read_rules(text)
    if endless := _endless(rules):
        raise GbnfError(f"the rule {endless} never ends: none of its ways does")
    return "\n".join(_Writer(rules).lines())


class _Writer:
    """Writes rules as lexer's words (T1) or as parser's rules (r1)."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._numbers = {name: number for number, name in enumerate(rules)}
        self._recursive = _recursive(rules)
        self._words: list[str] = []

    def lines(self) -> Iterator[str]:
        yield f"start: {self._name('root')}"
        for name, node in self._rules.items():
            yield f"{self._name(name)}: {self._write(node, name not in self._recursive)}"
        yield from self._words

    def _name(self, name: str) -> str:
        return f"{'r' if name in self._recursive else 'T'}{self._numbers[name]}"

    def _is_word(self, node: Node) -> bool:
        return not self._recursive.intersection(names(node))

    def _write(self, node: Node, in_word: bool) -> str:
        """The node; outside of words, what can be one is given a name of its own."""
        if not in_word and self._is_word(node):
            self._words.append(f"W{len(self._words)}: {self._write(node, True)}")
            return f"W{len(self._words) - 1}"
        match node:
            case Word(text):
                return text
            case Rule(name):
                return self._name(name)
            case Repeat(part, count):
                return f"({self._write(part, in_word)}){count}"
            case Choice(ways):
                return f"({' | '.join(self._write(way, in_word) for way in ways)})"
            case Sequence(parts):
                grouped = parts if in_word else self._grouped(parts)
                return " ".join(self._write(part, in_word) for part in grouped) or '""'

    def _grouped(self, parts: tuple[Node, ...]) -> Iterator[Node]:
        """The parts, with neighbours that can be one word made one."""
        run: list[Node] = []
        for part in parts:
            if self._is_word(part):
                run.append(part)
                continue
            if run:
                yield Sequence(tuple(run))
            run = []
            yield part
        if run:
            yield Sequence(tuple(run))


def _recursive(rules: dict[str, Node]) -> set[str]:
    """The rules that lead back to themselves, or to such a rule."""
    open_ = {name: set(names(node)) for name, node in rules.items()}
    while True:
        done = {name for name, needs in open_.items() if not needs & open_.keys()}
        if not done:
            return set(open_)
        open_ = {name: needs for name, needs in open_.items() if name not in done}


def _endless(rules: dict[str, Node]) -> str | None:
    """A rule that derives no text, as it always needs another of these."""
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, node in rules.items():
        for used in set(names(node)):
            users[used].append(name)
    ending: set[str] = set()
    open_ = list(rules)
    while open_:
        name = open_.pop()
        if name not in ending and _ends(rules[name], ending):
            ending.add(name)
            open_ += users[name]
    return next((name for name in rules if name not in ending), None)


def _ends(node: Node, ending: set[str]) -> bool:
    match node:
        case Rule(name):
            return name in ending
        case Repeat(part, count):
            return count in ("*", "?") or count.startswith("{0,") or _ends(part, ending)
        case Choice(ways):
            return any(_ends(way, ending) for way in ways)
        case Sequence(parts):
            return all(_ends(part, ending) for part in parts)
    return True
