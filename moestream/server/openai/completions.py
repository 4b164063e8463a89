"""/v1/completions: text in, its continuation out, for one prompt or several."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from moestream.chat.breakers import breakers_of
from moestream.chat.output import Output
from moestream.chat.reasoning import Piece
from moestream.server.activity import Sequence as Running
from moestream.server.body import read
from moestream.server.completion import Answer, Task
from moestream.server.constraints import Form, text_constraints
from moestream.server.errors import APIError
from moestream.server.jobs import Job, Made, Reading
from moestream.server.model import Model
from moestream.server.openai import told
from moestream.server.openai.chat import DONE
from moestream.server.openai.schemas import CompletionRequest, LlamaRequest
from moestream.server.prompts import check_length
from moestream.server.sampling import checked_logprobs, choice
from moestream.server.sse import Answering, Heard, event
from moestream.server.state import state_of
from moestream.server.text import prompts

_FINISH = {"eos": "stop", "word": "stop", "limit": "length"}


async def completions(request: Request) -> ASGIApp:
    """Continue texts."""
    asked = await read(request, CompletionRequest)
    asked.check()
    return Answering(state_of(request), partial(_prepare, asked), stream=bool(asked.stream))


def text_tasks(
    asked: CompletionRequest | LlamaRequest, model: Model, top_logprobs: int | None
) -> list[Task]:
    """A task for each choice of each prompt.

    Raises:
        APIError: something that makes no sense, or is too long.
    """
    model.check_name(asked.model)
    choices = asked.n or 1
    given = prompts(model, asked.prompt, choices)
    for _, tokens in given:
        check_length(model, tokens)
    form = Form(json_schema=asked.json_schema, grammar=asked.grammar)
    constraints = text_constraints(model, form, len(given) * choices)
    asked.check_ends(constraints[0])
    sampling = asked.sampling(model.defaults.sampling, model.tokenizer)
    breakers, limit = breakers_of(sampling, model.tokenizer), asked.limit(model.defaults)
    stop, places = asked.stop_strings(), iter(constraints)
    return [
        Task(
            job=Job(
                prompt=tokens,
                sampling=choice(sampling, index),
                max_tokens=limit,
                end_ids=model.tokenizer.end_ids,
                breakers=breakers,
                top_logprobs=top_logprobs,
                constraint=next(places),
                reuse=asked.cache_prompt is not False,
            ),
            stop=stop,
            prompt=text,
        )
        for text, tokens in given
        for index in range(choices)
    ]


def text_of(new: Sequence[Output]) -> str:
    """The text of an output that is nothing but text."""
    return "".join(each.text for each in new if isinstance(each, Piece))


def _prepare(asked: CompletionRequest, model: Model) -> tuple[list[Task], "Speaker"]:
    logprobs = checked_logprobs(asked.logprobs, "logprobs")
    if asked.echo and logprobs is not None:
        raise APIError(
            400, "logprobs of the prompt are not to be had: leave out echo", param="echo"
        )
    tasks = text_tasks(asked, model, logprobs)
    return tasks, Speaker(asked, told.Envelope("text_completion", model.name), model)


class Speaker:
    """Tells continuations in OpenAI's words."""

    def __init__(self, asked: CompletionRequest, envelope: told.Envelope, model: Model) -> None:
        self._asked = asked
        self._envelope = envelope
        self._tokenizer = model.tokenizer
        options = asked.stream_options
        self._usage = options is not None and bool(options.include_usage)
        self._untold: dict[int, list[Made]] = {}
        self._lengths: dict[int, int] = {}
        self._begun: set[int] = set()

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """llama-server's progress, if it was asked for."""
        if self._asked.return_progress:
            more = told.progress_fields(reading, running, timed=bool(self._asked.timings_per_token))
            yield self._part(index, "", more=more)

    def more(self, heard: Heard) -> Iterable[bytes]:
        """What is new of a text."""
        index, answer = heard.index, heard.answer
        told.keep(self._untold.setdefault(index, []), heard)
        text = self._echo(index, answer) + text_of(heard.output)
        if text:
            more: dict[str, Any] = {}
            if self._asked.timings_per_token:
                more["timings"] = told.timings(answer, heard.running)
            yield self._part(index, text, more=more)

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """The last part of a choice, which says why."""
        more: dict[str, Any] = {} if self._usage else {"timings": told.timings(answer, running)}
        text, finish = self._echo(index, answer), _FINISH[answer.finish or "limit"]
        yield self._part(index, text, finish, more=more)

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """The usage, if it was asked for, and the end."""
        if self._usage:
            usage = told.usage(answers, running)
            timings = told.timings(answers[0], running[0])
            yield event(self._envelope.around([], usage=usage, timings=timings))
        yield DONE

    def failed(self, error: APIError) -> bytes:
        """An error's object, and no end."""
        return event(error.body())

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """All choices."""
        choices = [
            self._choice(
                index,
                self._echo(index, answer) + answer.content,
                answer.said,
                _FINISH[answer.finish or "limit"],
            )
            for index, answer in enumerate(answers)
        ]
        return self._envelope.around(
            choices,
            usage=told.usage(answers, running),
            timings=told.timings(answers[0], running[0]),
        )

    def _echo(self, index: int, answer: Answer) -> str:
        """The prompt, if it is to be told and was not yet."""
        if not self._asked.echo or index in self._begun:
            return ""
        self._begun.add(index)
        return answer.task.prompt

    def _part(
        self,
        index: int,
        text: str,
        finish: str | None = None,
        *,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        choice = self._choice(index, text, self._untold.pop(index, []), finish)
        return event(self._envelope.around([choice], **more))

    def _choice(
        self, index: int, text: str, made: Sequence[Made], finish: str | None
    ) -> dict[str, Any]:
        logprobs = None if self._asked.logprobs is None else self._logprobs(index, made)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, index: int, made: Sequence[Made]) -> dict[str, Any]:
        """In OpenAI's form, and beside it in that which llama-server has for chats too."""
        content = told.chances(made, self._tokenizer)
        offsets = []
        for each in content:
            offsets.append(self._lengths.get(index, 0))
            self._lengths[index] = offsets[-1] + len(each["token"])
        return {
            "tokens": [each["token"] for each in content],
            "token_logprobs": [each["logprob"] for each in content],
            "top_logprobs": [
                # The chosen one is always among them, as with OpenAI.
                {top["token"]: top["logprob"] for top in (*each["top_logprobs"], each)}
                for each in content
            ],
            "text_offset": offsets,
            "content": content,
        }
