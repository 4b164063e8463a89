"""Whether clients that others wrote work with `moestream serve`, each in an environment of its own.

Needs: the demo model, and a package registry. Makes a virtual environment for each client in a
temporary folder, or in one that is given and kept. Each line is a check; the last line is JSON, and
the status is 1 if one failed. What is checked is in client_checks/, a file a client. The server
has a chat template with tools, which the demo's own has not; calls are made certain by
`tool_choice`, as the model is too small to see for itself.

    python scripts/oracle/clients.py [--envs FOLDER] [openai anthropic ...]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_CHECKS = _HERE / "client_checks"
_PACKAGES: dict[str, tuple[str, ...]] = {
    "openai": ("openai", "pydantic"),
    "anthropic": ("anthropic", "pydantic"),
    "litellm": ("litellm",),
    "langchain_openai": ("langchain-openai",),
    "pydantic_ai": ("pydantic-ai-slim[openai]",),
    "llm": ("llm",),
    "curl": (),
}
_TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions: {% for tool in tools %}{{ tool | tojson }} {% endfor %}
Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_LONGEST_S = 600.0
_WRONG = re.compile(r" 5\d\d \d|warning|error", re.IGNORECASE)
"""What the server says when something went wrong that is no client's fault."""


def main() -> int:
    """Check those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(_PACKAGES))
    parser.add_argument("--envs", type=Path, help="keep the environments here, and use them again")
    parser.add_argument("--model", default="demo")
    asked = parser.parse_args()
    with ExitStack() as stack:
        envs = asked.envs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, log = stack.enter_context(_serving(asked.model))
        results: dict[str, dict[str, str]] = {}
        for client in asked.clients or _PACKAGES:
            python = _environment(envs.resolve() / client, _PACKAGES[client])
            results[client] = dict(_check(client, python, url))
        told = [line for line in log.read_text().splitlines() if _WRONG.search(line)]
    failed = [f"{c}: {n}" for c, r in results.items() for n, w in r.items() if w != "ok"]
    passed = sum(map(len, results.values())) - len(failed)
    print(json.dumps({"passed": passed, "failed": failed, "server": told, "checks": results}))
    return bool(failed or told)


@contextmanager
def _serving(model: str) -> Iterator[tuple[str, Path]]:
    """A server; its URL, and the file of what it says."""
    with tempfile.TemporaryDirectory() as folder:
        template, log = Path(folder, "tools.jinja"), Path(folder, "log")
        template.write_text(_TEMPLATE)
        command = [*(sys.executable, "-m", "moestream", "serve", model, "--port", "0", "-v")]
        command += ["--chat-template", str(template), "--temp", "0", "-n", "200", "--seed", "1"]
        environment = os.environ | {"PYTHONPATH": str(_ROOT)}
        with log.open("w") as out:
            server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            yield _url(server, log), log
        finally:
            server.terminate()
            server.wait()


def _url(server: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where it is, once it has loaded."""
    while server.poll() is None:
        if found := re.search(r"(http://[\d.:]+): .*at a time", log.read_text()):
            return found[1]
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def _environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """The Python of an environment that has these packages."""
    python = folder / "bin" / "python"
    if not packages:
        return Path(sys.executable)
    if not python.exists():
        print(f"installing {', '.join(packages)}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, stderr=subprocess.DEVNULL)
    return python


def _check(client: str, python: Path, url: str) -> Iterator[tuple[str, str]]:
    """Run a client's checks; what each came to."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(python), "-W", "ignore", str(_CHECKS / "run.py"), client, url]
    with tempfile.TemporaryDirectory() as home:
        ran = subprocess.run(
            command,
            env=environment | {"HOME": home},
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    found = [line.split("\t") for line in ran.stdout.splitlines() if line.count("\t") == 2]
    if ran.returncode or not found:
        found.append([client, "all", (ran.stderr.strip() or "nothing was checked")[-500:]])
    for _, name, came in found:
        print(f"{client:18} {name:28} {came}", flush=True)
        yield name, came


if __name__ == "__main__":
    sys.exit(main())
