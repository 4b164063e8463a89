"""What an answer must be: from a request's fields to a constraint of the engine.

Owns which fields go together. The grammars are ``moestream.grammars``'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.shapes import wrong_shape
from moestream.chat.tool_calls.text import Malformed
from moestream.engine.sampling import Constraint
from moestream.errors import RequestError
from moestream.grammars import GrammarConstraint
from moestream.server.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form of an answer's text, as a request asks for it."""

    response_format: Mapping[str, Any] | None = None
    json_schema: Any = None
    grammar: str | None = None
    name: str = "response_format"
    """What the API calls that field."""

    def constraint(self, model: Model) -> GrammarConstraint | None:
        """Make what enforces it for one sequence; None where any text will do.

        Raises:
            RequestError: a form that cannot be enforced, or two of them.
        """
        given = self.given
        if len(given) > 1:
            raise RequestError(f"{' and '.join(given)} exclude each other", given[1])
        try:
            return _sound(self._made(model))
        except RequestError as error:
            param = error.param or (given[0] if given else self.name)
            raise RequestError(str(error), param.partition(".")[0]) from None

    def _made(self, model: Model) -> GrammarConstraint | None:
        if self.json_schema is not None:
            return _by_schema(model, self.json_schema, "json_schema")
        if self.grammar:
            return model.grammars.gbnf(self.grammar)
        return self._of_format(model, self.response_format) if self.response_format else None

    @property
    def given(self) -> tuple[str, ...]:
        """The fields that ask for a form."""
        format = self.response_format
        asked = {
            self.name: format is not None and format.get("type", "text") != "text",
            "json_schema": self.json_schema is not None,
            "grammar": bool(self.grammar),
        }
        return tuple(name for name, is_given in asked.items() if is_given)

    def _of_format(self, model: Model, given: Mapping[str, Any]) -> GrammarConstraint | None:
        kind = given.get("type", "text")
        if kind == "text":
            return None
        if kind == "regex":
            pattern = given.get("pattern")
            if not isinstance(pattern, str):
                raise RequestError(f"{self.name}: there is no pattern", self.name)
            return model.grammars.regex(pattern, param=self.name)
        if kind == "json_object":
            return _by_schema(model, given.get("schema", {}), self.name)
        if kind == "json_schema":
            inner = given.get("json_schema", given)
            schema = inner.get("schema") if isinstance(inner, Mapping) else None
            if schema is None:
                raise RequestError(f"{self.name}: there is no schema", self.name)
            return _by_schema(model, schema, self.name)
        raise RequestError(
            f"{self.name}: type is {kind!r}, expected text, json_object, json_schema or regex",
            self.name,
        )


def _sound(made: GrammarConstraint | None) -> GrammarConstraint | None:
    """See that an answer can begin, before a stream of it has.

    Raises:
        RequestError: it cannot.
    """
    if made is not None:
        try:
            made.allowed()
        except RequestError as error:
            raise RequestError(
                f"nothing can be written so: it is too large, or leads to itself ({error})"
            ) from None
    return made


def _by_schema(model: Model, schema: Any, param: str) -> GrammarConstraint:
    if not isinstance(schema, Mapping | bool):
        raise RequestError(f"{param}: the schema is no JSON schema", param)
    if schema == {}:  # which stands for any object, as in llama-server
        return model.grammars.json_object()
    return model.grammars.json_schema(schema, param=param)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The tools of a request, and whether they must be called."""

    tools: Sequence[Mapping[str, Any]] = ()
    required: bool = False
    name: str | None = None
    """The one that must be called."""
    parallel: bool = True

    @classmethod
    def of(
        cls,
        tools: Sequence[Mapping[str, Any]] | None,
        choice: str | Mapping[str, Any] | None,
        parallel: bool | None,
    ) -> "ToolUse":
        """Read OpenAI's ``tools``, ``tool_choice`` and ``parallel_tool_calls``.

        Raises:
            RequestError: something else is in them.
        """
        for index, tool in enumerate(tools or ()):
            function = tool.get("function")
            if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
                raise RequestError(f"tools.{index} is no function", "tools")
            if not (isinstance(function.get("name"), str) and function["name"]):
                raise RequestError(f"tools.{index} has no name", "tools")
            if not _can_be_called(function["name"]):
                raise RequestError(
                    f"tools.{index}: its name is not one that calls can be read by: expected at "
                    "most 256 letters, digits and _ . : / $ -",
                    "tools",
                )
            parameters = function.get("parameters")
            if parameters is not None and (wrong := wrong_shape(parameters)):
                raise RequestError(f"tools.{index}: {wrong}, as JSON Schema wants it", "tools")
        name = _named(choice)
        if choice in ("none",):
            return cls()
        required = name is not None or choice == "required"
        if required and not tools:
            raise RequestError("tool_choice asks for a call, and there are no tools", "tool_choice")
        return cls(tools=tools or (), required=required, name=name, parallel=parallel is not False)

    def check(self, model: Model) -> None:
        """See that the model knows tools.

        Raises:
            RequestError: it does not.
        """
        if self.tools and model.tool_format is None:
            raise RequestError(
                "this model has no chat template, so it cannot be told of tools",
                "tools",
            )

    def constraint(self, model: Model) -> GrammarConstraint | None:
        """Make what enforces a call for one sequence; None where none is asked for.

        Raises:
            RequestError: it cannot be enforced.
        """
        if not self.required or model.tool_format is None:
            return None
        made = model.grammars.tool_calls(
            model.tool_format, self.tools, self.name, parallel=self.parallel
        )
        try:
            return _sound(made)
        except RequestError as error:
            raise RequestError(str(error), "tools") from None


def _can_be_called(name: str) -> bool:
    """Whether those who read calls take it for a tool's name."""
    try:
        Calls(lambda event: None).begin(name)
    except Malformed:
        return False
    return name == name.strip()


def _named(choice: str | Mapping[str, Any] | None) -> str | None:
    """The tool that ``tool_choice`` names."""
    if choice is None or choice in ("none", "auto", "required"):
        return None
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            "tool_choice must be none, auto, required, or name a function", "tool_choice"
        )
    return name


def text_constraints(model: Model, form: Form, count: int) -> list[Constraint | None]:
    """What each of so many texts must be; each has a place of its own in the same grammar.

    Raises:
        RequestError: it cannot be enforced, or contradicts itself.
    """
    made = form.constraint(model)
    return [None if made is None else made.another() for _ in range(count)]


def chat_constraints(
    model: Model, form: Form, use: ToolUse, count: int, *, inside: bool
) -> list[Constraint | None]:
    """What each of so many answers of a chat must be, once its reasoning has ended.

    Raises:
        RequestError: it cannot be enforced, or contradicts itself.
    """
    text = form.constraint(model)
    made = use.constraint(model) or text
    if made is None:
        return [None] * count
    several = (made.another() for _ in range(count))
    return [each.after_reasoning(model.markers, inside=inside) for each in several]
