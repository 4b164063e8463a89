"""/v1/messages: messages in, blocks out, whole or as a stream; and how many tokens they become."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from moestream.server import prompts
from moestream.server.activity import Sequence as Running
from moestream.server.anthropic.prompts import chat_of, tool_use, without_noise
from moestream.server.anthropic.schemas import CountRequest, MessagesRequest
from moestream.server.blocks import Block, Blocks, Event, blocks_of
from moestream.server.body import JSON, read
from moestream.server.chat_task import Wanted, chat_task
from moestream.server.completion import Answer, Task
from moestream.server.constraints import Form
from moestream.server.errors import APIError
from moestream.server.identifiers import random_id
from moestream.server.jobs import Reading
from moestream.server.model import Model
from moestream.server.openai import told
from moestream.server.sampling import checked_stops
from moestream.server.sse import Answering, Heard, event
from moestream.server.state import State, state_of

_STOP = {"eos": "end_turn", "word": "stop_sequence", "limit": "max_tokens"}


async def messages(request: Request) -> ASGIApp:
    """Answer messages."""
    asked = await read(request, MessagesRequest)
    asked.check()
    state = state_of(request)
    _cut_noise(state, asked)
    return Answering(state, partial(_prepare, asked), stream=bool(asked.stream))


async def count_tokens(request: Request) -> ASGIApp:
    """Tell how many tokens messages become."""
    asked = await read(request, CountRequest)
    asked.check()
    state = state_of(request)
    model = state.model
    model.check_name(asked.model)
    _cut_noise(state, asked)
    count = await asyncio.to_thread(lambda: prompts.count_tokens(model, chat_of(asked)))
    return JSON({"input_tokens": count})


def _cut_noise(state: State, asked: CountRequest) -> None:
    if asked.system is None or state.options.keep_noise:
        return
    cut = without_noise(asked.system)
    if cut != asked.system:
        asked.system = cut
        state.tell_once(
            "a client's billing header, which is another at each request, is cut out of its "
            "system prompts, so that what was read of them is found again; --keep-noise leaves "
            "it in"
        )


def _prepare(asked: MessagesRequest, model: Model) -> tuple[list[Task], "Speaker"]:
    model.check_name(asked.model)
    format = asked.output_config.format if asked.output_config else None
    format = format or asked.output_format
    wanted = Wanted(
        sampling=asked.sampling(model.defaults.sampling, model.tokenizer),
        max_tokens=asked.max_tokens,
        use=tool_use(asked.tools, asked.tool_choice),
        form=Form(response_format=format, name="output_config.format"),
        stop=checked_stops(asked.stop_sequences, "stop_sequences"),
    )
    return [chat_task(model, chat_of(asked), wanted)], Speaker(model.name)


class Speaker:
    """Tells an answer in Anthropic's words."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = random_id("msg_")
        self._blocks = Blocks()
        self._begun = False

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """That there is somebody, while a long prompt is read."""
        yield from self._begin(running)
        yield _event({"type": "ping"})

    def more(self, heard: Heard) -> Iterable[bytes]:
        """What is new of its blocks."""
        yield from self._begin(heard.running)
        for each in self._blocks.hear(heard.answer, heard.output):
            yield from _told(each)

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """Why it ended, and what it took."""
        yield from self._begin(running)
        for each in self._blocks.end():
            yield from _told(each)
        usage = _usage(running, told.tokens(answer, running))
        yield _event({"type": "message_delta", "delta": _stopped(answer), "usage": usage})

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """The end."""
        yield _event({"type": "message_stop"})

    def failed(self, error: APIError) -> bytes:
        """An error's object, and no end."""
        return event(error.anthropic(), "error")

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """All of it at once."""
        (answer,), (own,) = answers, running
        content = [_whole(block) for block in blocks_of(answer)]
        return {**self._message(content, own, told.tokens(answer, own)), **_stopped(answer)}

    def _begin(self, running: Running) -> Iterable[bytes]:
        if not self._begun:
            self._begun = True
            yield _event({"type": "message_start", "message": self._message([], running, 0)})

    def _message(self, content: list[Any], running: Running, made: int) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(running, made),
        }


def _event(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


def _told(what: Event) -> Iterable[bytes]:
    block, text = what.block, what.text
    index = block.index
    match what.what:
        case "begun":
            begun = _block(block.kind, "", block)
            yield _event({"type": "content_block_start", "index": index, "content_block": begun})
        case "more":
            kinds = {
                "reasoning": {"type": "thinking_delta", "thinking": text},
                "answer": {"type": "text_delta", "text": text},
                "call": {"type": "input_json_delta", "partial_json": text},
            }
            delta = {"type": "content_block_delta", "index": index, "delta": kinds[block.kind]}
            yield _event(delta)
        case "ended":
            if block.kind == "reasoning":
                signed = {"type": "signature_delta", "signature": ""}
                yield _event({"type": "content_block_delta", "index": index, "delta": signed})
            yield _event({"type": "content_block_stop", "index": index})


def _whole(block: Block) -> dict[str, Any]:
    made = _block(block.kind, block.text, block)
    if block.kind == "call":
        made["input"] = json.loads(block.text or "{}")
    return made


def _block(kind: str, text: str, block: Block) -> dict[str, Any]:
    if block.call is not None:
        return {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": {}}
    if kind == "reasoning":
        return {"type": "thinking", "thinking": text, "signature": ""}
    return {"type": "text", "text": text}


def _stopped(answer: Answer) -> dict[str, Any]:
    reason = _STOP[answer.finish or "limit"]
    if answer.context_full:
        reason = "model_context_window_exceeded"
    elif answer.calls_tools:
        reason = "tool_use"
    return {"stop_reason": reason, "stop_sequence": answer.stop_word or None}


def _usage(running: Running, made: int) -> dict[str, int]:
    took = running.usage()
    return {
        "input_tokens": len(running.job.prompt) - took.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": took.cached_tokens,
        "output_tokens": made,
    }
