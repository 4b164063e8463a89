"""Requests to a server of OpenAI's API, as clients with little to do make them.

Owns connections and times. Standard library alone: what a client computes is taken from the server
beside it.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Answer:
    """What one streamed request came to; times are from its start."""

    status: int = 0
    text: str = ""
    times: list[float] = field(default_factory=list)
    """When each of its tokens came."""
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """How many came."""
        return len(self.times)

    @property
    def first_s(self) -> float:
        """When the first one came; 0 if none did."""
        return self.times[0] if self.times else 0.0

    @property
    def last_s(self) -> float:
        """When the last one came; 0 if none did."""
        return self.times[-1] if self.times else 0.0

    @property
    def decode_tps(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / (self.last_s - self.first_s) if self.tokens > 1 else 0.0


async def chat(port: int, body: dict[str, Any], *, leave_after: int | None = None) -> Answer:
    """Ask for a streamed chat completion; go away after so many tokens, if that is given."""
    return await ask(port, "/v1/chat/completions", body, leave_after=leave_after)


async def ask(
    port: int, path: str, body: dict[str, Any], *, leave_after: int | None = None
) -> Answer:
    """Send a request that is to be streamed, and read its events."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    data = json.dumps({"stream": True, "stream_options": {"include_usage": True}, **body}).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
        + data
    )
    answer = Answer()
    try:
        answer.status = int((await reader.readline()).split()[1])
        async for line in reader:
            if line.startswith(b"data: {"):
                _take(answer, json.loads(line[6:]), time.perf_counter() - started)
            if leave_after is not None and answer.tokens >= leave_after:
                break
    finally:
        writer.transport.abort()
    return answer


def _take(answer: Answer, event: dict[str, Any], now: float) -> None:
    if event.get("usage"):
        answer.usage = event["usage"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("reasoning_content") or choice.get("text")
        if text:
            answer.times.append(now)
            answer.text += text


async def wait_ready(port: int, limit_s: float = 300.0) -> None:
    """Wait until the server says that it is well."""
    ends = time.monotonic() + limit_s
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return
        except OSError:
            pass
        if time.monotonic() > ends:
            raise TimeoutError("the server did not become ready")
        await asyncio.sleep(0.2)
