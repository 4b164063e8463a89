"""A real server for tests: a model behind HTTP on a free port, in threads of this process."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.server.listener import Listener
from moestream.server.model import Defaults, Model
from moestream.server.options import ServerOptions

GREEDY = Defaults(SamplingParams(temperature=0))
WEATHER: Any = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
"""What a function takes that tells the weather."""


@dataclass
class Served:
    """A server, and a client of it."""

    listener: Listener
    model: Model
    http: httpx2.Client
    log: list[str]
    warnings: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.listener.url

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.http.get(path, **options)

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.http.post(path, json=body)

    def chat(self, **body: Any) -> Any:
        response = self.post("/v1/chat/completions", **{"messages": user("hi"), **body})
        assert response.status_code == 200, response.text
        return response.json()

    def chat_stream(self, **body: Any) -> list[Any]:
        return self.stream("/v1/chat/completions", **{"messages": user("hi"), **body})

    def prompt(self, **given: Any) -> str:
        """What a message becomes by the chat template."""
        text = self.post("/apply-template", messages=user("hi"), **given).json()["prompt"]
        assert isinstance(text, str)
        return text

    def stream(self, path: str, **body: Any) -> list[Any]:
        """The values of all events; a stream that is not whole fails."""
        response = self.post(path, stream=True, **body)
        assert response.status_code == 200, response.text
        return events(response.text)

    def refused(self, path: str = "/v1/chat/completions", status: int = 400, **body: Any) -> Any:
        """The error object of a request that is refused."""
        if "chat" in path:
            body = {"messages": user("hi"), **body}
        response = self.post(path, **body)
        assert response.status_code == status, response.text
        return response.json()["error"]


@contextmanager
def serving(
    path: Path,
    *,
    defaults: Defaults = GREEDY,
    keys: tuple[str, ...] = (),
    names: tuple[str, ...] = ("alphabet",),
    context: int = 512,
    chat_template: str | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Serve a model file; ``options`` are ``ServerOptions``'."""
    server = ServerOptions(port=0, **options)
    log: list[str] = []
    warnings: list[str] = []
    with (
        Listener(server, keys, log=log.append, warn=warnings.append) as listener,
        Engine.open(path, context_length=context) as engine,
        Model.of(engine, names, server, defaults, chat_template=chat_template) as model,
    ):
        listener.serve(model)
        try:
            headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
            with httpx2.Client(base_url=listener.url, headers=headers, timeout=60) as http:
                yield Served(listener, model, http, log, warnings)
        finally:
            listener.close()


def until(holds: Callable[[], object]) -> None:
    """Wait for what happens soon."""
    for _ in range(400):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def events(text: str) -> list[Any]:
    """What the events of a stream say; comments are left out, and ``[DONE]`` as it is."""
    found = []
    for block in text.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
    return found


def content(stream: list[Any], kind: str = "content") -> str:
    """The text of a chat's stream."""
    choices = [c for each in stream if isinstance(each, dict) for c in each["choices"]]
    return "".join(choice["delta"].get(kind) or "" for choice in choices)
