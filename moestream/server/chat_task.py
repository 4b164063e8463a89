"""A chat as a task, for APIs that have one answer a request and say less of sampling."""

from dataclasses import dataclass, field

from moestream.chat.breakers import breakers_of
from moestream.engine.options import SamplingParams
from moestream.server.completion import Task
from moestream.server.constraints import Form, ToolUse, chat_constraints
from moestream.server.jobs import Job
from moestream.server.model import Model
from moestream.server.prompts import Chat, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a chat is to be answered."""

    sampling: SamplingParams
    max_tokens: int | None
    use: ToolUse
    form: Form = field(default_factory=Form)
    stop: tuple[str, ...] = ()


def chat_task(model: Model, chat: Chat, wanted: Wanted) -> Task:
    """Make the task.

    Raises:
        APIError, RequestError, TemplateError: it cannot be answered so.
    """
    use = wanted.use
    use.check(model)
    prompt = prepare(model, chat)
    (constraint,) = chat_constraints(model, wanted.form, use, 1, inside=prompt.inside)
    return Task(
        job=Job(
            prompt=prompt.tokens,
            sampling=wanted.sampling,
            max_tokens=wanted.max_tokens,
            end_ids=model.tokenizer.end_ids,
            breakers=breakers_of(wanted.sampling, model.tokenizer),
            constraint=constraint,
        ),
        stop=wanted.stop,
        markers=model.markers,
        inside=prompt.inside,
        tool_format=model.tool_format,
        # Where a form is asked for, it is what the answer has, as with llama-server.
        tools=() if wanted.form.given and not use.required else use.tools,
        parallel_calls=use.parallel,
        prompt=prompt.text,
    )
