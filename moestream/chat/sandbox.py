"""The environment that chat templates run in: Hugging Face's, in jinja2's sandbox.

Owns what a template may call. A template comes with a model file from anywhere: it is a program
that nobody here has read. Knows nothing of messages or models.

Source: https://huggingface.co/docs/transformers/chat_templating_writing; the restrictions on
``dict`` and ``namespace`` are those of transformers 5.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def compile_template(source: str) -> Template:
    """Compile a chat template.

    Raises:
        jinja2.TemplateSyntaxError: it is no template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    functions: dict[str, Callable[..., Any]] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _dict,
        "namespace": _Namespace,
    }
    environment.globals.update(functions)
    return environment.from_string(source)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it is a mere block."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own annotation is of an instance

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    """jinja2's namespace, without the names that reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # no self: namespace(self=...) is possible
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"namespace attribute {name!r} begins with an underscore")


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """The function alone: the class would have more attributes than a template needs."""
    return dict(*args, **kwargs)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRuntimeError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Replace jinja2's filter, which escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
