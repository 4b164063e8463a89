"""/v1/responses: items in, items out, whole or as a stream of events. Nothing is stored."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from moestream.server.activity import Sequence as Running
from moestream.server.blocks import Block, Blocks, Event, blocks_of
from moestream.server.body import read
from moestream.server.chat_task import Wanted, chat_task
from moestream.server.completion import Answer, Task
from moestream.server.constraints import Form
from moestream.server.errors import APIError
from moestream.server.identifiers import random_id
from moestream.server.jobs import Reading
from moestream.server.model import Model
from moestream.server.openai import told
from moestream.server.openai.response_items import chat_of, tool_use
from moestream.server.openai.responses_schema import ResponsesRequest
from moestream.server.sse import Answering, Heard, event
from moestream.server.state import state_of
from moestream.tokenizer import Tokenizer

_PREFIXES = {"reasoning": "rs_", "answer": "msg_", "call": "fc_"}


async def responses(request: Request) -> ASGIApp:
    """Answer items."""
    asked = await read(request, ResponsesRequest)
    asked.check()
    return Answering(state_of(request), partial(_prepare, asked), stream=bool(asked.stream))


def _prepare(asked: ResponsesRequest, model: Model) -> tuple[list[Task], "Speaker"]:
    model.check_name(asked.model)
    limit = asked.max_output_tokens
    wanted = Wanted(
        sampling=asked.sampling(model.defaults.sampling, model.tokenizer),
        max_tokens=model.defaults.max_tokens if limit is None else limit,
        use=tool_use(asked),
        form=Form(response_format=asked.text.format if asked.text else None, name="text.format"),
    )
    task = chat_task(model, chat_of(asked), wanted)
    return [task], Speaker(asked, wanted, model.name, model.tokenizer)


class Speaker:
    """Tells an answer as a response."""

    def __init__(
        self, asked: ResponsesRequest, wanted: Wanted, model: str, tokenizer: Tokenizer
    ) -> None:
        self._asked = asked
        self._tokenizer = tokenizer
        self._blocks = Blocks()
        self._ids: dict[int, str] = {}
        self._done: list[dict[str, Any]] = []
        self._count = 0
        self._response = {
            "id": random_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **_echo(asked, wanted),
        }

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """llama-server's progress, if it was asked for."""
        yield from self._begin()
        if self._asked.return_progress:
            response, how_far = self._told("in_progress"), told.progress(reading, running)
            yield self._event("response.in_progress", response=response, prompt_progress=how_far)

    def more(self, heard: Heard) -> Iterable[bytes]:
        """What is new of its items."""
        yield from self._begin()
        more: dict[str, Any] = {}
        if self._asked.timings_per_token:
            more["timings"] = told.timings(heard.answer, heard.running)
        for each in self._blocks.hear(heard.answer, heard.output):
            yield from self._items(each, more)

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """The whole response, and so the end."""
        yield from self._begin()
        for each in self._blocks.end():
            yield from self._items(each, {})
        response = self._ended(self._done, answer, running)
        timings = told.timings(answer, running)
        yield self._event(f"response.{response['status']}", response=response, timings=timings)

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """Nothing more."""
        return ()

    def failed(self, error: APIError) -> bytes:
        """The response as far as it went, with an error."""
        why = {"code": "server_error", "message": error.message}
        response = self._told("failed", output=self._done, error=why)
        return b"".join(self._begin()) + self._event("response.failed", response=response)

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """All of it at once."""
        items = [self._item(block, "completed") for block in blocks_of(answers[0])]
        return self._ended(items, answers[0], running[0])

    def _begin(self) -> Iterable[bytes]:
        if not self._count:
            yield self._event("response.created", response=self._told("in_progress"))
            yield self._event("response.in_progress", response=self._told("in_progress"))

    def _items(self, what: Event, more: dict[str, Any]) -> Iterable[bytes]:
        block = what.block
        id = self._ids.setdefault(block.index, random_id(_PREFIXES[block.kind]))
        at: dict[str, Any] = {"item_id": id, "output_index": block.index}
        names = _NAMES[block.kind]
        if block.kind != "call":
            at["content_index"] = 0
        match what.what:
            case "begun":
                item = self._item(block, "in_progress")
                yield self._event("response.output_item.added", output_index=block.index, item=item)
                if block.kind != "call":
                    part = _part(block.kind, "")
                    yield self._event("response.content_part.added", **at, part=part)
            case "more":
                yield self._event(
                    f"{names[0]}.delta", **at, **_NO_LOGPROBS[block.kind], delta=what.text, **more
                )
            case "ended":
                done = {names[1]: block.text, **_NO_LOGPROBS[block.kind]}
                if block.call is not None:
                    done["name"] = block.call.name
                yield self._event(f"{names[0]}.done", **at, **done)
                if block.kind != "call":
                    part = _part(block.kind, block.text)
                    yield self._event("response.content_part.done", **at, part=part)
                item = self._item(block, "completed")
                self._done.append(item)
                yield self._event("response.output_item.done", output_index=block.index, item=item)

    def _item(self, block: Block, status: str) -> dict[str, Any]:
        id = self._ids.setdefault(block.index, random_id(_PREFIXES[block.kind]))
        item: dict[str, Any] = {"id": id, "status": status}
        parts = [_part(block.kind, block.text)] if status == "completed" else []
        if block.call is not None:
            call = {"call_id": block.call.id, "name": block.call.name, "arguments": block.text}
            return {**item, "type": "function_call", **call}
        if block.kind == "reasoning":
            return {**item, "type": "reasoning", "summary": [], "content": parts}
        return {**item, "type": "message", "role": "assistant", "content": parts}

    def _ended(self, items: list[Any], answer: Answer, running: Running) -> dict[str, Any]:
        cut = answer.finish == "limit"
        if cut and items:
            items[-1]["status"] = "incomplete"
        return self._told(
            "incomplete" if cut else "completed",
            output=items,
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            usage=self._usage(answer, running),
            completed_at=None if cut else int(time.time()),
        )

    def _told(self, status: str, **more: Any) -> dict[str, Any]:
        nothing: dict[str, Any] = {
            "output": [],
            "error": None,
            "incomplete_details": None,
            "usage": None,
        }
        return {**self._response, "status": status, "output": [], **nothing, **more}

    def _usage(self, answer: Answer, running: Running) -> dict[str, Any]:
        read, made = len(running.job.prompt), told.tokens(answer, running)
        thought = len(self._tokenizer.encode(answer.reasoning, add_special=False))
        return {
            "input_tokens": read,
            "input_tokens_details": {
                "cached_tokens": running.usage().cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": min(thought, made)},
            "total_tokens": read + made,
        }

    def _event(self, kind: str, **more: Any) -> bytes:
        made = {"type": kind, "sequence_number": self._count, **more}
        self._count += 1
        return event(made, kind)


_NAMES = {
    "reasoning": ("response.reasoning_text", "text"),
    "answer": ("response.output_text", "text"),
    "call": ("response.function_call_arguments", "arguments"),
}
"""What a kind's events are called, and what the text in the last of them."""
_NO_LOGPROBS: dict[str, dict[str, Any]] = {"reasoning": {}, "answer": {"logprobs": []}, "call": {}}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _echo(asked: ResponsesRequest, wanted: Wanted) -> dict[str, Any]:
    """What a response repeats of its request."""
    text = (asked.text and asked.text.format) or {"type": "text"}
    return {
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None},
        "store": False,
        "temperature": wanted.sampling.temperature,
        "text": {"format": text},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": wanted.sampling.top_p,
        "truncation": "disabled",
    }
