"""Stands in llama-server's place: starts ``moestream serve`` with what its flags mean.

Whatever model is asked for, the one in LAUNCHED_MODEL is served; with LAUNCHED_BINARY, by that
llama-server itself, whose flags stay as they are.
"""

import os
import sys
from typing import Any

_VALUELESS = (
    *("--offline", "--cont-batching", "--embedding", "--reranking", "--metrics", "--kv-unified"),
    *("--swa-full", "--slots", "--no-slots", "--verbose", "--context-shift", "--no-ui"),
    *("--no-models-autoload", "--jinja", "--no-jinja", "--no-mmproj", "--no-cache-idle-slots"),
    *("--ui-mcp-proxy", "--backend_sampling"),
)
_MODEL = ("--model", "--model-url", "--hf-repo", "--hf-file", "--offline")
_SAME = {
    "--port": "--port",
    "--host": "--host",
    "--temp": "--temp",
    "--seed": "--seed",
    "--parallel": "--parallel",
    "--n-predict": "--n-predict",
    "--api-key": "--api-key",
    "--chat-template": "--chat-template",
    "--chat-template-file": "--chat-template",
}
_ASKED_FOR = (
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "davinci-002",
    "gpt-4.1",
    "test",
    "codellama70b",
)
"""Names of models that the tests ask for; llama-server takes any."""


def given(arguments: list[str]) -> dict[str, str | None]:
    """Flags and their values."""
    found: dict[str, str | None] = {}
    rest = iter(arguments)
    for flag in rest:
        found[flag] = None if flag in _VALUELESS else next(rest)
    return found


def translated(flags: dict[str, Any]) -> list[str]:
    """The same in moestream's words."""
    made = [part for flag, name in _SAME.items() if flag in flags for part in (name, flags[flag])]
    context = int(flags.get("--ctx-size", 0))
    if "--kv-unified" not in flags:
        context //= int(flags.get("--parallel", 1))
    made += ["--ctx-size", str(context)]
    aliases = flags.get("--alias", "").split(",")
    aliases += _ASKED_FOR if len(aliases) == 1 else ()
    origins = flags.get("--cors-origins", "localhost" if "--tools" in flags else "*")
    return [*made, "--cors", origins, *(part for a in aliases if a for part in ("--alias", a))]


def main() -> None:
    """Become the server."""
    flags, model = given(sys.argv[1:]), os.environ["LAUNCHED_MODEL"]
    if binary := os.environ.get("LAUNCHED_BINARY"):
        kept = [(flag, value) for flag, value in flags.items() if flag not in _MODEL]
        arguments = [part for pair in kept for part in pair if part is not None]
        os.execv(binary, [binary, "--model", model, *arguments])
    command = [sys.executable, "-m", "moestream", "serve", model, *translated(flags)]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
