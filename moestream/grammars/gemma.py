"""Values as Gemma 4 writes them: JSON whose keys have no quotes and whose texts have a token's."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moestream.grammars import lark
from moestream.grammars.parameters import definitions, refusal

_NUMBERS = {
    "integer": r"/-?(0|[1-9][0-9]{0,17})/",
    "number": r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/",
    "boolean": '("true" | "false")',
    "null": '"null"',
}
_KNOWN = {
    *("type", "enum", "const", "items", "minItems", "maxItems", "properties", "required"),
    *("additionalProperties", "description", "title", "default", "examples", "format", "$schema"),
}


class GemmaGrammar:
    """Collects the rules of one tool's arguments."""

    def __init__(self, tool: str, prefix: str, spell: Callable[[str], str]) -> None:
        self.rules: list[str] = []
        self._tool = tool
        self._prefix = prefix
        self._quote = spell('<|"|>')

    def value(self, schema: Mapping[str, Any] | bool) -> str:
        """What stands for a value that the schema allows.

        Raises:
            RequestError: the schema says what cannot be enforced.
        """
        if isinstance(schema, bool):
            if schema:
                return self._anything("anything")
            raise refusal(self._tool, "has a value that nothing fits")
        if beyond := schema.keys() - _KNOWN - definitions(schema).keys():
            raise refusal(self._tool, f"uses {min(beyond)}")
        values = (
            schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else ()
        )
        if values:
            return f"({' | '.join(self._literals(values))})"
        types = schema.get("type")
        found = [types] if isinstance(types, str) else types
        if not found:
            return self._anything("anything")
        return f"({' | '.join(self._typed(str(type), schema) for type in found)})"

    def _literals(self, values: Any) -> Iterator[str]:
        words = {True: "true", False: "false", None: "null"}
        for value in values:
            if isinstance(value, str):
                yield f"{self._quote} {lark.literal(value)} {self._quote}"
            elif isinstance(value, bool) or value is None:
                yield lark.literal(words[value])
            elif isinstance(value, int):
                yield lark.literal(str(value))
            else:
                raise refusal(self._tool, "has an enum of more than texts and integers")

    def _typed(self, type: str, schema: Mapping[str, Any]) -> str:
        if type == "string":
            # Where the quote is a token that no text has, there is nothing that a text cannot be.
            text = "/(?s:.*)/" if self._quote.startswith("<[") else "/[^<]*/"
            return f"{self._quote} {text} {self._quote}"
        if type == "array":
            return self._array(schema)
        if type == "object":
            return self.object(schema)
        if type not in _NUMBERS:
            raise refusal(self._tool, f"has a value of the type {type!r}")
        return _NUMBERS[type]

    def _array(self, schema: Mapping[str, Any]) -> str:
        items = schema.get("items")
        if not isinstance(items, Mapping):
            items = {}
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        if most == 0:
            return '"[]"'
        value, item = self.value(items), f"{self._prefix}i{len(self.rules)}"
        self.rules.append(f"{item}: {value}")
        end = "" if most is None else most - 1
        some = f'"[" {item} ("," {item}){{{max(least - 1, 0)},{end}}} "]"'
        return some if least else f'("[]" | {some})'

    def _anything(self, what: str) -> str:
        """Any value, or any object."""
        name = f"{self._prefix}any"
        if not any(rule.startswith(f"{name}_anything:") for rule in self.rules):
            key, value = "/[A-Za-z_][A-Za-z0-9_]{0,63}/", f"{name}_anything"
            member = f'{key} ":" {value}'
            scalars = [*_NUMBERS.values(), self._typed("string", {}), f"{name}_object"]
            self.rules += [
                f'{value}: {" | ".join(scalars)} | "[" ({value} ("," {value})*)? "]"',
                f'{name}_object: "{{" ({member} ("," {member})*)? "}}"',
            ]
        return f"{name}_{what}"

    def object(self, schema: Mapping[str, Any]) -> str:
        """What stands for an object that the schema allows."""
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        if not properties and not required and schema.get("additionalProperties", True):
            return self._anything("object")
        if set(required) - set(properties):
            raise refusal(self._tool, "requires what it does not describe")
        parts = [
            (f"{lark.literal(key + ':')} {self.value(found)}", key in required)
            for key, found in properties.items()
        ]
        name = f"{self._prefix}o{len(self.rules)}"
        self.rules += lark.in_order(name, parts, '","')
        return f'"{{" {name} "}}"'
