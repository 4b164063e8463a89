"""`curl`, as in docs/server.md."""

import json
import subprocess
from typing import Any

SAID = [{"role": "user", "content": "What is the capital of Italy?"}]


def _curl(url: str, *arguments: str) -> str:
    ran = subprocess.run(
        ["curl", "-sS", "--fail-with-body", url, *arguments], capture_output=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-300:]
    return ran.stdout.decode()


def _post(url: str, body: Any) -> str:
    return _curl(url, "-H", "Content-Type: application/json", "-d", json.dumps(body))


def check_health_and_models(url: str) -> None:
    """What needs no body."""
    assert json.loads(_curl(f"{url}/health")) == {"status": "ok"}
    assert json.loads(_curl(f"{url}/v1/models"))["data"][0]["id"] == "demo"
    assert "moestream_" in _curl(f"{url}/metrics")


def check_chat(url: str) -> None:
    """An answer."""
    told = json.loads(_post(f"{url}/v1/chat/completions", {"messages": SAID}))
    assert "Rome" in told["choices"][0]["message"]["content"]


def check_streams(url: str) -> None:
    """How each API's stream ends."""
    chat = _post(f"{url}/v1/chat/completions", {"messages": SAID, "stream": True})
    assert chat.endswith("data: [DONE]\n\n")
    messages = _post(f"{url}/v1/messages", {"messages": SAID, "stream": True, "max_tokens": 99})
    assert messages.rstrip().endswith('{"type":"message_stop"}')
    responses = _post(f"{url}/v1/responses", {"input": SAID, "stream": True})
    assert "event: response.completed\n" in responses
