"""Arguments as MiniMax-M3 writes them: a tag each, with tags within it for members and items.

Owns what stands between a tag and its end: text where the schema allows one, else tags, else JSON.
That is how the format's reader takes it, and llama.cpp's too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from moestream.chat.tool_calls.nested_calls import DEEPEST, ITEM, NestedFormat
from moestream.chat.tool_calls.schemas import Tools, resolve
from moestream.grammars import lark
from moestream.grammars.parameters import Parameter, definitions, refusal, texts

_NOTES = {"title", "description", "default", "examples", "format", "$defs", "definitions"}
_TEXT = {*_NOTES, "type"}
_OBJECT = {*_NOTES, "type", "properties", "required", "additionalProperties"}
_ARRAY = {*_NOTES, "type", "items", "minItems", "maxItems"}
_MOST_REFERENCES = 16
_MOST_COPIES = 1000
"""Tags and references within references: these are written out wherever they stand."""


class NestedGrammar:
    """Collects the rules of all tools' arguments."""

    def __init__(self, format: NestedFormat, tools: Tools, spell: Callable[[str], str]) -> None:
        self._format, self._tools, self._spell = format, tools, spell
        mark = spell(format.mark)
        visible = mark == lark.literal(format.mark)
        # Any text, and the mark that ends it.
        self.rules = [f"free[suffix={mark}]: /(?s:.*)/" if visible else f"free: /(?s:.*)/ {mark}"]
        self._open: set[str] = set()
        self._copies = 0

    def frame(self, names: Sequence[str], more: str) -> Iterator[str]:
        """Rules for what is around arguments, the rules ``p0q``, ``p1q``...

        ``more``: what may follow the first call.
        """
        tag, space = self._format.tag, lark.SPACE
        yield f"start: {self._tag(tag)} {space} whole{more} {space} {self._tag(f'/{tag}')}"
        yield f"whole: ({' | '.join(f'call{index}' for index, _ in enumerate(names))})"
        for index, name in enumerate(names):
            opened, closed = self._tag(f'invoke name="{name}"'), self._tag("/invoke")
            yield f"call{index}: {opened} {space} p{index}q {space} {closed}"

    def member(self, tool: str, parameter: Parameter) -> str:
        """An argument: its tag, its value, and the end of its tag.

        Raises:
            RequestError: the schema says what cannot be enforced.
        """
        return self._element(tool, parameter, (parameter.name,))

    def _count(self, tool: str) -> None:
        """References that lead to several, and so on, would come to members without end."""
        self._copies += bool(self._open)
        if self._copies > _MOST_COPIES:
            raise refusal(tool, f"comes to more than {_MOST_COPIES:,} members by its references")

    def _tag(self, name: str) -> str:
        return self._spell(f"{self._format.mark}<{name}>")

    def _element(self, tool: str, part: Parameter, path: tuple[str, ...]) -> str:
        name = part.name
        if not name or name.startswith("/") or "<" in name or ">" in name:
            raise refusal(tool, f"has a member {name!r}, which no tag can name")
        if len(path) > DEEPEST:
            raise refusal(tool, f"has values more than {DEEPEST} deep within each other")
        self._count(tool)
        allowed = self._texts(tool, part, path)
        if allowed is None:
            value = f"({' | '.join(self._ways(tool, part.schema, path))}) {self._tag(f'/{name}')}"
        elif allowed:
            value = f"({' | '.join(map(lark.literal, allowed))}) {self._tag(f'/{name}')}"
        else:
            value = f"free {self._spell(f'</{name}>')}"
        return f"{self._tag(name)} {value}"

    def _texts(self, tool: str, part: Parameter, path: tuple[str, ...]) -> list[str] | None:
        """What text may be there, as ``texts`` has it; where one way is any text, it is that."""
        schema, types = self._followed(tool, part.schema), self._tools.types(tool, *path)
        if "string" in types:
            ways = (self._followed(tool, way) for way in self._apart(tool, schema))
            if any(way.get("type") == "string" and not way.keys() - _TEXT for way in ways):
                return []
        return texts(tool, Parameter(part.name, schema, part.required), types)

    def _followed(self, tool: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a schema comes to that only refers to another."""
        for _ in range(_MOST_REFERENCES):
            if "$ref" not in schema:
                return schema
            schema = self._target(tool, schema)
        raise refusal(tool, "refers to itself")

    def _target(self, tool: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found = resolve(str(schema["$ref"]), self._tools.parameters(tool))
        if schema.keys() - _NOTES - {"$ref"} or not isinstance(found, Mapping):
            raise refusal(tool, f"refers to {schema['$ref']!r} and says more, or it is not there")
        return found

    def _ways(self, tool: str, schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
        """What a value that is no text may be."""
        ways = list(self._apart(tool, schema))
        self._check_apart(tool, [self._followed(tool, way) for way in ways], path[-1])
        for way in ways:
            kind = _kind(way)
            if "$ref" in way:
                yield self._reference(tool, way, path)
            elif kind == "object":
                yield self._object(tool, way, path)
            elif kind == "array":
                yield self._array(tool, way, path)
            else:
                yield lark.of_schema(definitions(self._tools.parameters(tool)) | way)

    def _check_apart(self, tool: str, ways: Sequence[Mapping[str, Any]], name: str) -> None:
        """A reader sees tags alone: items make a list, others an object, and none at all a list."""
        kinds = [_kind(way) for way in ways]
        objects = [way for way, kind in zip(ways, kinds, strict=True) if kind == "object"]
        if len(objects) > 1 or kinds.count("array") > 1:
            raise refusal(tool, f"lets {name!r} be one of several objects or lists")
        alike = [way for way in objects if ITEM in way["properties"] or not way.get("required")]
        if alike and "array" in kinds:
            raise refusal(tool, f"lets {name!r} be a list, or an object that may look like one")

    def _apart(self, tool: str, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The ways of a schema, each of one type."""
        for word in ("anyOf", "oneOf"):
            if word in schema:
                if beyond := schema.keys() - _NOTES - {word}:
                    raise refusal(tool, f"uses {min(beyond)} beside {word}")
                for way in schema[word]:
                    yield from self._apart(tool, _part(tool, word, way).schema)
                return
        said = schema.get("type")
        for type in said if isinstance(said, list) else [said]:
            yield {**schema, "type": type} if type else dict(schema)

    def _reference(self, tool: str, schema: Mapping[str, Any], path: tuple[str, ...]) -> str:
        reference = str(schema["$ref"])
        if reference in self._open:
            raise refusal(tool, f"has {reference!r} within itself")
        self._open.add(reference)
        self._count(tool)
        ways = " | ".join(self._ways(tool, self._target(tool, schema), path))
        self._open.discard(reference)
        return f"({ways})"

    def _object(self, tool: str, schema: Mapping[str, Any], path: tuple[str, ...]) -> str:
        self._check_words(tool, schema, _OBJECT)
        properties, required = schema["properties"], schema.get("required") or ()
        if unknown := set(required) - set(properties):
            raise refusal(tool, f"requires {min(unknown)!r}, which it does not describe")
        parts = [
            (self._element(tool, _part(tool, key, found), (*path, key)), key in required)
            for key, found in properties.items()
        ]
        name = f"o{len(self.rules)}q"
        self.rules += lark.in_order(name, parts, lark.SPACE)
        return name

    def _array(self, tool: str, schema: Mapping[str, Any], path: tuple[str, ...]) -> str:
        self._check_words(tool, schema, _ARRAY)
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        if most == 0:
            return '""'
        part = _part(tool, ITEM, schema.get("items", True))
        item = f"{lark.SPACE} {self._element(tool, part, (*path, ITEM))}"
        name = f"i{len(self.rules)}q"
        self.rules.append(f"{name}: {item}")
        return f"{name}{{{least},{'' if most is None else most}}}"

    def _check_words(self, tool: str, schema: Mapping[str, Any], known: set[str]) -> None:
        if beyond := [word for word, value in schema.items() if word not in known and value]:
            raise refusal(tool, f"uses {min(beyond)}")


def _kind(schema: Mapping[str, Any]) -> str | None:
    """Whether a value is written as tags within tags: an object's, or a list's."""
    kind = schema.get("type")
    if schema.keys() & {"enum", "const"} or (kind == "object" and not schema.get("properties")):
        return None
    return kind if kind in ("object", "array") else None


def _part(tool: str, name: str, schema: Any) -> Parameter:
    if schema is False:
        raise refusal(tool, "has a value that nothing fits")
    if not isinstance(schema, Mapping | bool):
        raise refusal(tool, f"has {name} {schema!r}, which is no schema")
    return Parameter(name, schema if isinstance(schema, Mapping) else {}, required=True)
