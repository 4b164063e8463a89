"""Constraints on what a model writes: JSON, regular expressions, GBNF, tool calls.

Owns which grammars there are and that each is compiled once. llguidance, which computes what may
come next, is imported here alone. Knows nothing of sampling: a constraint is a mask of the
vocabulary, as ``moestream.engine.sampling.Constraint`` has it.
"""

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher

from moestream.chat.tool_calls import ToolFormat
from moestream.chat.tool_calls.formats import HarmonyFormat
from moestream.chat.tool_calls.schemas import Tools
from moestream.errors import RequestError
from moestream.grammars import lark, limits, tool_calls
from moestream.grammars.constraint import GrammarConstraint
from moestream.grammars.gbnf import GbnfError
from moestream.grammars.gbnf_to_lark import to_lark
from moestream.grammars.json_schemas import enforceable
from moestream.grammars.patterns import PatternError, to_rust
from moestream.grammars.reasoning import AfterReasoning
from moestream.grammars.refusals import plain
from moestream.grammars.vocabulary import Vocabulary
from moestream.grammars.words import check_words
from moestream.tokenizer import Tokenizer

__all__ = ["AfterReasoning", "GrammarConstraint", "Grammars"]

_MOST_KEPT = 32


class Grammars:
    """The constraints that one model can be put under; each method gives a fresh one."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        """Read the vocabulary; ``end_ids``: what ends a generation.

        Raises:
            RequestError: there is none.
        """
        self._vocabulary = Vocabulary(tokenizer, end_ids)
        self._tokenizer = tokenizer
        self._compiled: dict[str, LLMatcher] = {}
        self._lock = threading.Lock()

    def json_object(self) -> GrammarConstraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(
        self, schema: Mapping[str, Any] | bool, *, param: str = "response_format"
    ) -> GrammarConstraint:
        """JSON that a schema allows; ``param``: the request's field that it stands in.

        Raises:
            RequestError: it is none, is too large, or asks for what cannot be enforced.
        """
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        schema = _enforceable(schema, "the JSON schema", param)
        return self._make(_from_lark(f"start: {lark.of_schema(schema)}"), "the JSON schema", param)

    def regex(self, pattern: str, *, param: str = "grammar") -> GrammarConstraint:
        """What a regular expression matches as a whole; it is one of ECMA-262, as in a schema.

        Raises:
            RequestError: it is none, is too long, or has what cannot be enforced, such as
                look-arounds.
        """
        limits.check_text(pattern, "the regular expression", param)
        try:
            grammar = LLMatcher.grammar_from_regex(to_rust(pattern, whole=True))
        except PatternError as error:
            raise _refused("the regular expression", str(error), param) from None
        return self._make(grammar, "the regular expression", param, is_json=False)

    def gbnf(self, text: str, *, param: str = "grammar") -> GrammarConstraint:
        """What a grammar in llama.cpp's notation derives.

        Raises:
            RequestError: it is none, or too large.
        """
        limits.check_text(text, "the grammar", param)
        try:
            grammar = to_lark(text)
        except (GbnfError, RecursionError) as error:
            raise RequestError(f"the grammar cannot be read: {error}", param) from None
        return self._make(_from_lark(grammar), "the grammar", param, is_json=False)

    def tool_calls(
        self,
        format: ToolFormat,
        tools: Sequence[Mapping[str, Any]],
        choice: str | None = None,
        *,
        parallel: bool = True,
    ) -> GrammarConstraint:
        """Calls of tools: of the one named ``choice``, or of any; several with ``parallel``.

        Raises:
            RequestError: no such tool, or a schema that is too large or cannot be enforced.
        """
        known = Tools(tools)
        if choice is not None and choice not in known.names:
            raise RequestError(f"tool_choice names {choice!r}, which is no tool", "tool_choice")
        names = known.names if choice is None else (choice,)
        schemas = {
            name: _enforceable(known.parameters(name), f"the schema of the tool {name!r}", "tools")
            for name in names
        }
        limits.check_together(list(schemas.values()), "what the tools take", "tools")
        known = Tools([{"name": name, "parameters": schema} for name, schema in schemas.items()])
        spell = self._speller(format.specials)
        grammar = tool_calls.of_calls(format, known, names, spell, parallel=parallel)
        ends = (
            () if isinstance(format, HarmonyFormat) or not format.ends_reasoning else format.openers
        )
        matcher = self._matcher(_from_lark(grammar), "a tool's parameters", "tools")
        return GrammarConstraint(
            self._vocabulary, matcher, param="tools", is_answer=False, ends_reasoning=ends
        )

    def _speller(self, specials: Collection[str]) -> Callable[[str], str]:
        """What writes a text of a format: a special token that is hidden must be said to be one."""
        ids = {name: self._tokenizer.token_id(name) for name in specials}
        hidden = {
            name: f"<[{id}]>"
            for name, id in ids.items()
            if id is not None and self._tokenizer.is_hidden(id)
        }

        def spell(text: str) -> str:
            parts = re.split(f"({'|'.join(map(re.escape, hidden))})", text) if hidden else [text]
            return " ".join(hidden.get(part) or lark.literal(part) for part in parts if part)

        return spell

    def _make(
        self, grammar: str, what: str, param: str, *, is_json: bool = True
    ) -> GrammarConstraint:
        matcher = self._matcher(grammar, what, param)
        return GrammarConstraint(self._vocabulary, matcher, param=param, is_json=is_json)

    def _matcher(self, grammar: str, what: str, param: str) -> LLMatcher:
        with self._lock:
            matcher = self._compiled.get(grammar)
        if matcher is None:  # compiled outside the lock: others need not wait for a slow one
            matcher = self._compile(grammar, what, param)
        with self._lock:
            self._compiled.pop(grammar, None)
            self._compiled[grammar] = matcher  # the last that was used is last
            if len(self._compiled) > _MOST_KEPT:
                del self._compiled[next(iter(self._compiled))]
            return matcher.deep_copy()

    def _compile(self, grammar: str, what: str, param: str) -> LLMatcher:
        matcher = LLMatcher(self._vocabulary.for_grammars, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(what, plain(matcher.get_error()), param)
        return matcher


def _enforceable(schema: Mapping[str, Any], what: str, param: str) -> dict[str, Any]:
    limits.check_schema(schema, what, param)
    check_words(schema, what, param)
    try:
        return enforceable(schema)
    except PatternError as error:
        raise _refused(what, f"of a pattern, {error}", param) from None


def _refused(what: str, reason: str, param: str) -> RequestError:
    return RequestError(f"{what} cannot be enforced: {reason}", param)


def _from_lark(grammar: str) -> str:
    return LLMatcher.grammar_from_lark(grammar)
