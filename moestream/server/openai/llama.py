"""/completion: llama-server's own endpoint for text, with its own words."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from moestream.server.activity import Sequence as Running
from moestream.server.body import read
from moestream.server.completion import Answer, Task
from moestream.server.errors import APIError
from moestream.server.jobs import Made, Reading
from moestream.server.model import Model
from moestream.server.openai import told
from moestream.server.openai.completions import text_of, text_tasks
from moestream.server.openai.schemas import LlamaRequest
from moestream.server.sampling import checked_logprobs
from moestream.server.sse import Answering, Heard, event
from moestream.server.state import state_of


async def completion(request: Request) -> ASGIApp:
    """Continue texts."""
    asked = await read(request, LlamaRequest)
    asked.check()
    return Answering(state_of(request), partial(_prepare, asked), stream=bool(asked.stream))


def _prepare(asked: LlamaRequest, model: Model) -> tuple[list[Task], "Speaker"]:
    # Of no likeliest tokens llama-server tells nothing at all.
    logprobs = checked_logprobs(asked.n_probs, "n_probs") or None
    return text_tasks(asked, model, logprobs), Speaker(asked, model)


class Speaker:
    """Tells continuations in llama-server's words."""

    def __init__(self, asked: LlamaRequest, model: Model) -> None:
        self._asked = asked
        self._model = model
        self._untold: dict[int, list[Made]] = {}

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """How far the prompt is read, if it was asked for."""
        if self._asked.return_progress:
            more = told.progress_fields(reading, running, timed=bool(self._asked.timings_per_token))
            yield self._part(index, "", [], running, **more)

    def more(self, heard: Heard) -> Iterable[bytes]:
        """What is new of a text, with its tokens."""
        index, running = heard.index, heard.running
        told.keep(self._untold.setdefault(index, []), heard)
        if text := text_of(heard.output):
            more: dict[str, Any] = {}
            if self._asked.timings_per_token:
                more["timings"] = told.timings(heard.answer, running)
            yield self._part(index, text, self._untold.pop(index), running, **more)

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """All that is to be told of one, but for its text, which was."""
        yield event({**self._final(index, answer, running), "content": "", "tokens": []})

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """Nothing: llama-server ends so."""
        return ()

    def failed(self, error: APIError) -> bytes:
        """An error's object."""
        return event(error.body())

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """One object, or a list where there were several prompts or choices."""
        told_all = []
        for index, answer in enumerate(answers):
            each = self._final(index, answer, running[index])
            if answer.task.job.top_logprobs:
                each["completion_probabilities"] = self._chances(answer.said)
            told_all.append(_chosen(each, self._asked.response_fields or []))
        return told_all[0] if len(told_all) == 1 else told_all

    def _part(
        self, index: int, text: str, made: Sequence[Made], running: Running, **more: Any
    ) -> bytes:
        if made and running.job.top_logprobs:
            more["completion_probabilities"] = self._chances(made)
        return event(
            {
                "index": index,
                "content": text,
                "tokens": [each.token for each in made],
                "stop": False,
                "id_slot": -1,
                "tokens_predicted": running.made,
                "tokens_evaluated": len(running.job.prompt),
                **more,
            }
        )

    def _final(self, index: int, answer: Answer, running: Running) -> dict[str, Any]:
        job = answer.task.job
        return {
            "index": index,
            "content": answer.content,
            "tokens": [each.token for each in answer.made] if self._asked.return_tokens else [],
            "id_slot": -1,
            "stop": True,
            "model": self._model.name,
            "tokens_predicted": told.tokens(answer, running),
            "tokens_evaluated": len(job.prompt),
            "generation_settings": self._settings(answer.task),
            "prompt": answer.task.prompt,
            "has_new_line": "\n" in answer.content,
            "truncated": answer.context_full,
            "stop_type": answer.finish or "none",
            "stopping_word": answer.stop_word,
            "tokens_cached": running.usage().cached_tokens,
            "timings": told.timings(answer, running),
        }

    def _settings(self, task: Task) -> dict[str, Any]:
        asked, job = self._asked, task.job
        return {
            **told.settings(job.sampling, job.max_tokens),
            "stop": list(task.stop),
            "stream": bool(asked.stream),
            "n_probs": asked.n_probs or 0,
            "timings_per_token": bool(asked.timings_per_token),
        }

    def _chances(self, made: Sequence[Made]) -> list[dict[str, Any]]:
        return told.chances(made, self._model.tokenizer)


def _chosen(whole: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The fields that were asked for, those of inner objects under a name with a slash."""
    if not names:
        return whole
    found: dict[str, Any] = {}
    for name in names:
        value: Any = whole
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value
    return found
