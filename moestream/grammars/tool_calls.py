"""Grammars that make a model write tool calls, in its own format, with arguments of the schema."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, singledispatch
from typing import Any

from moestream.chat.tool_calls import ToolFormat
from moestream.chat.tool_calls.formats import HarmonyFormat
from moestream.chat.tool_calls.json_calls import JsonFormat
from moestream.chat.tool_calls.named_calls import NamedFormat
from moestream.chat.tool_calls.nested_calls import NestedFormat
from moestream.chat.tool_calls.pythonic_calls import GemmaFormat, PythonFormat
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.tagged_calls import TaggedFormat
from moestream.grammars import lark
from moestream.grammars.gemma import GemmaGrammar
from moestream.grammars.nested import NestedGrammar
from moestream.grammars.parameters import Parameter, definitions, parameters, texts

Spell = Callable[[str], str]
"""Writes a text of the format, in which names of hidden tokens stand for these."""
_BEFORE_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*") (<\[.*)')
_INDENT = r"/[ \n]{0,8}/"
_NUMBER = {"type": "string", "pattern": "^[0-9]{1,2}$"}
Schemas = Mapping[str, Mapping[str, Any]]
"""What the arguments of each tool must be."""


def of_calls(
    format: ToolFormat, tools: Tools, names: Sequence[str], spell: Spell, *, parallel: bool
) -> str:
    """A grammar: one call of one of these tools, or with ``parallel`` one or several.

    Raises:
        RequestError: a schema says what cannot be enforced in this format.
    """
    schemas = {name: _closed(tools.parameters(name)) for name in names}
    return "\n".join(_rules(format, schemas, tools, spell, parallel))


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema; a tool that has none takes no arguments."""
    if schema.keys() - {"type"}:
        return schema
    return {"type": "object", "properties": {}, "additionalProperties": False}


@singledispatch
def _rules(format: Any, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool) -> list[str]:
    raise TypeError(format)


@_rules.register
def _json(
    format: JsonFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    ways = []
    for name, schema in schemas.items():
        properties = {format.name_key: {"const": name}, format.arguments_key: schema}
        if format.id_key:
            properties = {format.id_key: _NUMBER} | properties
        call = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        ways.append(lark.of_schema(call | definitions(schema)))
    close = f"{lark.SPACE} {spell(format.close)}" if format.close else ""
    if format.is_list:
        more = _more("call", f'"," {lark.SPACE}', parallel)
        listed = f'"[" {_INDENT} call{more} {_INDENT} "]"'
        start = f"start: {spell(format.open)} {listed} {close}"
    elif format.is_lines:
        more = _more("call", lark.SPACE, parallel)
        start = f"start: {spell(format.open)} {lark.SPACE} call{more} {close}"
    else:
        more = _more("whole", lark.SPACE, parallel)
        start = f"start: whole{more}\nwhole: {spell(format.open)} {lark.SPACE} call {close}"
    return [start, _choice("call", ways)]


@_rules.register
def _named(
    format: NamedFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    id = f"({spell(format.id_open)} /[a-zA-Z0-9]{{9}}/)?" if format.id_open else ""
    number = "/:[0-9]{1,2}/" if format.numbered else ""
    before = spell(format.before) if format.before else ""
    fence = f"/\\n?/ {spell(format.arguments_close)}" if format.arguments_close else ""
    ways = [
        f"{before} {lark.literal(name)} {number} {id} {spell(format.name_close)} "
        f"arguments{index} {fence}"
        for index, name in enumerate(schemas)
    ]
    opened, closed = (spell(text) if text else "" for text in (format.open, format.close))
    ended = spell(format.call_close) if format.call_close else ""
    more = _more("whole", lark.SPACE, parallel)
    return [
        f"start: {opened} whole{more} {closed}",
        f"whole: {spell(format.call_open)} call {ended}",
        _choice("call", ways),
        *_arguments(schemas),
    ]


@_rules.register
def _harmony(
    format: HarmonyFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    # A call ends the answer: there is one at most.
    start = spell("<|channel|>") + ' "commentary to=functions."'
    end = f'(" " {spell("<|constrain|>")} "json")? {spell("<|message|>")}'
    ways = [f"{lark.literal(name)} {end} arguments{index}" for index, name in enumerate(schemas)]
    return [f"start: {start} call", _choice("call", ways), *_arguments(schemas)]


@_rules.register
def _tagged(
    format: TaggedFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    name_close, space = spell(format.name_close) if format.name_close else "", lark.SPACE
    if format.name_end:
        name_close += f' /( [a-z]+="[^"]{{0,40}}")*/ {spell(format.name_end)}'
    ways = [
        f"{lark.literal(name)} {name_close} {space} p{index}q {space}"
        for index, name in enumerate(schemas)
    ]
    return [
        *_tagged_frame(format, spell, parallel),
        _choice("call", ways),
        *_in_order(schemas, space, partial(_tagged_member, format, tools, spell)),
        _free(format, spell),
    ]


def _tagged_frame(format: TaggedFormat, spell: Spell, parallel: bool) -> list[str]:
    opened, space, call_close = spell(format.open), lark.SPACE, spell(format.call_close)
    more = _more("whole", space, parallel)
    if not format.call_open:
        return [f"start: whole{more}", f"whole: {opened} call {call_close}"]
    whole, closed = f"{spell(format.call_open)} call {call_close}", spell(format.close)
    if format.line_breaks:  # Qwen: each call is in an element of its own
        whole = f"{opened} {space} {whole} {space} {closed}"
        return [f"start: whole{more}", f"whole: {whole}"]
    return [
        f"start: {opened} {space} whole{more} {space} {closed}",
        f"whole: {whole}",
    ]


def _free(format: TaggedFormat, spell: Spell) -> str:
    """Any text, up to what closes a value."""
    close = spell(format.value_close)
    if close == lark.literal(format.value_close):
        return f"free[suffix={close}]: /(?s:.*)/"
    found = _BEFORE_TOKEN.fullmatch(close)
    before, rest = (found[1], found[2]) if found else ('""', close)
    # What comes before a hidden token is of the text's own word: a word is as long as it can be.
    text = re.escape(json.loads(before)).replace("/", r"\/")
    return f"free: /(?s:.*){text}/ {rest}"


def _tagged_member(
    format: TaggedFormat, tools: Tools, spell: Spell, tool: str, parameter: Parameter
) -> str:
    types = tools.types(tool, parameter.name)
    allowed = texts(tool, parameter, types)
    is_text = allowed is not None
    # No model calls a number an integer, though what is read may.
    named = [f'"{"number" if type == "integer" else type}"' for type in types]
    ways = [text for text, said in format.key_closes if said in (None, is_text)]
    close = next((text for text in ways if any(type in text for type in named)), ways[0])
    line = '"\\n"' if format.line_breaks else ""
    if allowed is None:
        value = f"{lark.of_schema(parameter.schema)} {line} {spell(format.value_close)}"
    elif allowed:
        choice = " | ".join(map(lark.literal, allowed))
        value = f"({choice}) {line} {spell(format.value_close)}"
    else:
        value = "free"
    opened = f"{lark.SPACE} {spell(format.value_open)}" if format.value_open else ""
    key = f"{spell(format.key_open)} {lark.literal(format.written_key(parameter.name))}"
    return f"{key} {spell(close)} {opened} {line} {value}"


@_rules.register
def _nested(
    format: NestedFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    grammar = NestedGrammar(format, tools, spell)
    members = _in_order(schemas, lark.SPACE, grammar.member)
    more = _more("whole", lark.SPACE, parallel)
    return [*grammar.frame(list(schemas), more), *members, *grammar.rules]


@_rules.register
def _python(
    format: PythonFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    ways = [f'{lark.literal(name + "(")} p{index}q ")"' for index, name in enumerate(schemas)]
    more = _more("call", '", "', parallel)
    start = f'start: {spell(format.open)} "[" call{more} "]" {spell(format.close)}'
    return [start, _choice("call", ways), *_in_order(schemas, '", "', _python_member)]


def _python_member(tool: str, parameter: Parameter) -> str:
    return f"{lark.literal(parameter.name + '=')} {lark.of_schema(parameter.schema)}"


@_rules.register
def _gemma(
    format: GemmaFormat, schemas: Schemas, tools: Tools, spell: Spell, parallel: bool
) -> list[str]:
    rules: list[str] = []
    ways: list[str] = []
    for index, (name, schema) in enumerate(schemas.items()):
        grammar = GemmaGrammar(name, f"p{index}", spell)
        ways.append(f"{lark.literal(name)} {grammar.object(schema)}")
        rules += grammar.rules
    whole = f'whole: {spell(format.open)} "call:" call {spell(format.close)}'
    more = _more("whole", "", parallel)
    return [f"start: whole{more}", whole, _choice("call", ways), *rules]


def _more(what: str, between: str, parallel: bool) -> str:
    """More of the same, where there may be several."""
    return f" ({between} {what})*" if parallel else ""


def _arguments(schemas: Schemas) -> list[str]:
    ways = enumerate(schemas.values())
    return [f"arguments{index}: {lark.of_schema(schema)}" for index, schema in ways]


def _in_order(schemas: Schemas, between: str, write: Callable[[str, Parameter], str]) -> list[str]:
    """Rules ``p0q``, ``p1q``...: the arguments of each tool, as ``write`` has one of them."""
    rules: list[str] = []
    for index, (name, schema) in enumerate(schemas.items()):
        parts = [(write(name, found), found.required) for found in parameters(name, schema)]
        rules += lark.in_order(f"p{index}q", parts, between)
    return rules


def _choice(name: str, ways: Sequence[str]) -> str:
    return f"{name}: " + "\n  | ".join(ways)
