"""/v1/chat/completions: messages in, an answer out, whole or as a stream of deltas."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from moestream.chat.breakers import breakers_of
from moestream.chat.output import Output
from moestream.chat.reasoning import Piece
from moestream.chat.tool_calls import CallArguments, CallBegin
from moestream.server.activity import Sequence as Running
from moestream.server.body import JSON, read
from moestream.server.completion import Answer, Call, Task
from moestream.server.constraints import Form, ToolUse, chat_constraints
from moestream.server.errors import APIError
from moestream.server.jobs import Job, Made, Reading
from moestream.server.model import Model
from moestream.server.openai import told
from moestream.server.openai.schemas import ChatRequest, Prompt
from moestream.server.prompts import Chat, count_tokens, prepare, render
from moestream.server.sampling import checked_logprobs, choice
from moestream.server.sse import Answering, Heard, event
from moestream.server.state import state_of
from moestream.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"
_CHUNK = "chat.completion.chunk"
_FINISH = {"eos": "stop", "word": "stop", "limit": "length"}


async def chat_completions(request: Request) -> ASGIApp:
    """Answer a chat."""
    asked = await read(request, ChatRequest)
    asked.check()
    return Answering(state_of(request), partial(_prepare, asked), stream=bool(asked.stream))


async def apply_template(request: Request) -> ASGIApp:
    """Tell the prompt that messages become."""
    asked = await read(request, Prompt)
    model = state_of(request).model
    return JSON({"prompt": await asyncio.to_thread(render, model, chat_of(asked))})


async def input_tokens(request: Request) -> ASGIApp:
    """Tell how many tokens messages become."""
    asked = await read(request, Prompt)
    count = await asyncio.to_thread(count_tokens, state_of(request).model, chat_of(asked))
    return JSON({"input_tokens": count, "object": "response.input_tokens"})


def chat_of(asked: Prompt) -> Chat:
    """What the prompt is made of."""
    return Chat(
        messages=[each.model_dump(exclude_unset=True) for each in asked.messages],
        tools=None if asked.tool_choice == "none" else asked.tools,
        template_kwargs=asked.chat_template_kwargs or {},
        reasoning_effort=asked.reasoning_effort,
        add_generation_prompt=asked.add_generation_prompt,
        continue_final_message=asked.continue_final_message,
    )


def _prepare(asked: ChatRequest, model: Model) -> tuple[list[Task], "Speaker"]:
    model.check_name(asked.model)
    model.check_sequences(1, asked.n or 1)
    use = ToolUse.of(asked.tools, asked.tool_choice, asked.parallel_tool_calls)
    use.check(model)
    form = Form(
        response_format=asked.response_format, json_schema=asked.json_schema, grammar=asked.grammar
    )
    tasks = _tasks(asked, model, form, use)
    return tasks, Speaker(asked, told.Envelope("chat.completion", model.name), model.tokenizer)


def _tasks(asked: ChatRequest, model: Model, form: Form, use: ToolUse) -> list[Task]:
    """A task for each choice; what can be is shared by all."""
    prompt = prepare(model, chat_of(asked))
    constraints = chat_constraints(model, form, use, asked.n or 1, inside=prompt.inside)
    asked.check_ends(constraints[0])
    sampling = asked.sampling(model.defaults.sampling, model.tokenizer)
    limit = asked.max_completion_tokens
    job = Job(
        prompt=prompt.tokens,
        sampling=sampling,
        max_tokens=asked.limit(model.defaults) if limit is None else limit,
        end_ids=model.tokenizer.end_ids,
        breakers=breakers_of(sampling, model.tokenizer),
        top_logprobs=_logprobs(asked),
        predicted=asked.predicted(model.tokenizer)[: model.context],
        reuse=asked.cache_prompt is not False,
    )
    task = Task(
        job=job,
        stop=asked.stop_strings(),
        markers=None if asked.reasoning_format == "none" else model.markers,
        inside=prompt.inside,
        tool_format=model.tool_format,
        # Where a form is asked for, it is what the answer has, as with llama-server.
        tools=() if form.given and not use.required else use.tools,
        parallel_calls=use.parallel,
        prompt=prompt.text,
    )
    return [
        replace(task, job=replace(job, sampling=choice(sampling, index), constraint=constraint))
        for index, constraint in enumerate(constraints)
    ]


def _logprobs(asked: ChatRequest) -> int | None:
    """How many chances are told beside the chosen token's; None tells none at all."""
    if asked.logprobs:
        return checked_logprobs(asked.top_logprobs or 0, "top_logprobs")
    if asked.top_logprobs:
        raise APIError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    return checked_logprobs(asked.n_probs, "n_probs") or None


class Speaker:
    """Tells answers in OpenAI's words."""

    def __init__(self, asked: ChatRequest, envelope: told.Envelope, tokenizer: Tokenizer) -> None:
        self._asked = asked
        self._envelope = envelope
        self._tokenizer = tokenizer
        options = asked.stream_options
        self._usage = options is not None and bool(options.include_usage)
        self._with_logprobs = _logprobs(asked) is not None
        self._begun: set[int] = set()
        self._untold: dict[int, list[Made]] = {}

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """llama-server's progress, if it was asked for."""
        if self._asked.return_progress:
            more = told.progress_fields(reading, running, timed=bool(self._asked.timings_per_token))
            yield self._delta(index, {"role": "assistant", "content": None}, more=more)

    def more(self, heard: Heard) -> Iterable[bytes]:
        """A delta for each kind of text; the role comes first."""
        index, answer = heard.index, heard.answer
        yield from self._begin(index)
        if self._with_logprobs:
            told.keep(self._untold.setdefault(index, []), heard)
        more: dict[str, Any] = {}
        if self._asked.timings_per_token:
            more["timings"] = told.timings(answer, heard.running)
        for output in heard.output:
            if (delta := self._part(answer, output)) is not None:
                yield self._delta(index, delta, self._logprobs(index), more=more)

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """The last delta of a choice, which says why."""
        yield from self._begin(index)
        more: dict[str, Any] = {} if self._usage else {"timings": told.timings(answer, running)}
        logprobs = self._logprobs(index) if self._untold.get(index) else None
        yield self._delta(index, {}, logprobs, finish=_finish(answer), more=more)

    def _begin(self, index: int) -> Iterable[bytes]:
        if index not in self._begun:
            self._begun.add(index)
            yield self._delta(index, {"role": "assistant", "content": None})

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """The usage, if it was asked for, and the end."""
        if self._usage:
            usage = told.usage(answers, running)
            timings = told.timings(answers[0], running[0])
            yield event(self._envelope.around([], _CHUNK, usage=usage, timings=timings))
        yield DONE

    def failed(self, error: APIError) -> bytes:
        """An error's object, and no end."""
        return event(error.body())

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """All choices."""
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        more: dict[str, Any] = {}
        if self._asked.verbose:
            task = answers[0].task
            shown = told.settings(task.job.sampling, task.job.max_tokens)
            more["__verbose"] = {"prompt": task.prompt, "generation_settings": shown}
        return self._envelope.around(
            choices,
            **more,
            usage=told.usage(answers, running),
            timings=told.timings(answers[0], running[0]),
        )

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if calls := answer.told_calls:
            message["content"] = answer.content or None
            message["tool_calls"] = [_call(call) for call in calls]
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        choice = {"finish_reason": _finish(answer), "index": index, "message": message}
        if self._with_logprobs:
            choice["logprobs"] = {"content": told.chances(answer.said, self._tokenizer)}
        return choice

    def _part(self, answer: Answer, output: Output) -> dict[str, Any] | None:
        """The delta of a part of the output; None of what needs none."""
        match output:
            case Piece(kind, text):
                return {"content" if kind == "answer" else "reasoning_content": text}
            case CallBegin(number, name):
                function = {"name": name, "arguments": ""}
                call = {"id": answer.calls[number].id, "type": "function"}
                return {"tool_calls": [{"index": number, **call, "function": function}]}
            case CallArguments(number, text):
                return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}
        return None

    def _logprobs(self, index: int) -> dict[str, Any] | None:
        """Of the tokens that were not told yet."""
        if not self._with_logprobs:
            return None
        return {"content": told.chances(self._untold.pop(index, ()), self._tokenizer)}

    def _delta(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        choice: dict[str, Any] = {"finish_reason": finish, "index": index, "delta": delta}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return event(self._envelope.around([choice], _CHUNK, **more))


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"type": "function", "id": call.id, "function": function}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls_tools else _FINISH[answer.finish or "limit"]
