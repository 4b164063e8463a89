"""What OpenAI's two endpoints for answers have in common: usage, timings, chances, an envelope."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from moestream import __version__
from moestream.engine.options import SamplingParams
from moestream.server.activity import Sequence as Running
from moestream.server.completion import Answer
from moestream.server.identifiers import random_id
from moestream.server.jobs import Made, Reading
from moestream.server.sse import Heard
from moestream.tokenizer import Tokenizer

FINGERPRINT = f"b-moestream-{__version__}"
_LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON has not; OpenAI says so too."""


_OFF = {
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "n_keep": 0,
    "n_discard": 0,
    "min_keep": 0,
    "post_sampling_probs": False,
    "lora": [],
}
"""What samplers that are not here are told to be: off."""


@dataclass(slots=True)
class Envelope:
    """What stands around every answer and every part of it."""

    kind: str
    model: str
    id: str = field(default_factory=lambda: random_id("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))

    def around(self, choices: list[Any], kind: str | None = None, **more: Any) -> dict[str, Any]:
        """All of it."""
        return {
            "choices": choices,
            "created": self.created,
            "id": self.id,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "object": kind or self.kind,
            **more,
        }


def usage(answers: Sequence[Answer], running: Sequence[Running]) -> dict[str, Any]:
    """Tokens of a request: its prompt's count once for all choices of the same prompt.

    The first of them tells what was cached: the others find what it has read.
    """
    prompts = {id(each.job.prompt): each for each in reversed(running)}.values()
    prompt = sum(len(each.job.prompt) for each in prompts)
    made = sum(map(tokens, answers, running))
    took = [each.usage() for each in running]
    drafted, right = (sum(t.drafted_tokens for t in took), sum(t.accepted_tokens for t in took))
    told: dict[str, Any] = {
        "completion_tokens": made,
        "prompt_tokens": prompt,
        "total_tokens": made + prompt,
        "prompt_tokens_details": {"cached_tokens": sum(e.usage().cached_tokens for e in prompts)},
    }
    if drafted or any(each.job.predicted for each in running):
        told["completion_tokens_details"] = {
            "accepted_prediction_tokens": right,
            "rejected_prediction_tokens": drafted - right,
        }
    return told


def tokens(answer: Answer, running: Running) -> int:
    """Tokens of an answer; the one that ends it counts, as it took a step."""
    return len(answer.made) + (answer.finish == "eos" and running.has_end)


def timings(answer: Answer, running: Running) -> dict[str, Any]:
    """llama-server's numbers; the first token costs no step, so that speeds are without it."""
    took = running.usage()
    read = took.prompt_tokens - took.cached_tokens
    made = tokens(answer, running)
    told = _timings(took.cached_tokens, read, took.prompt_s, made, took.generation_s)
    if took.drafted_tokens:
        told |= {"draft_n": took.drafted_tokens, "draft_n_accepted": took.accepted_tokens}
    return told


def _timings(
    cached: int, read: int, prompt_s: float, made: int, generation_s: float
) -> dict[str, Any]:
    steps = max(made - 1, 0)
    prompt_ms, made_ms = prompt_s * 1e3, generation_s * 1e3
    return {
        "cache_n": cached,
        "prompt_n": read,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / read if read else 0.0,
        "prompt_per_second": 1e3 * read / prompt_ms if prompt_ms else 0.0,
        "predicted_n": made,
        "predicted_ms": made_ms,
        "predicted_per_token_ms": made_ms / steps if steps else 0.0,
        "predicted_per_second": 1e3 * steps / made_ms if steps and made_ms else 0.0,
    }


def settings(sampling: SamplingParams, max_tokens: int | None) -> dict[str, Any]:
    """llama-server's ``generation_settings``."""
    most = -1 if max_tokens is None else max_tokens
    seed = 2**32 - 1 if sampling.seed is None else sampling.seed
    return {
        **asdict(sampling),
        "logit_bias": [
            {"bias": None if bias == -math.inf else bias, "token": token}  # JSON has no infinity
            for token, bias in sampling.logit_bias
        ],
        "seed": seed,
        "max_tokens": most,
        "n_predict": most,
        **_OFF,
    }


def progress(reading: Reading, running: Running) -> dict[str, Any]:
    """llama-server's ``prompt_progress``."""
    return {
        "total": reading.total,
        "cache": reading.cached,
        "processed": reading.done,
        "time_ms": int(1e3 * _since_began(running)),
    }


def progress_fields(reading: Reading, running: Running, *, timed: bool) -> dict[str, Any]:
    """What an event of a prompt's progress has; with what the reading took, if ``timed``."""
    told: dict[str, Any] = {"prompt_progress": progress(reading, running)}
    if timed:
        read = reading.done - reading.cached
        took_s = _since_began(running) if read else 0.0
        told["timings"] = _timings(reading.cached, read, took_s, 0, 0.0)
    return told


def _since_began(running: Running) -> float:
    return time.perf_counter() - (running.started or running.began)


def keep(untold: list[Made], heard: Heard) -> None:
    """Add new tokens to those that are to be told; what is of a stop string is not."""
    untold.extend(heard.made)
    if unsaid := heard.answer.unsaid:
        del untold[-unsaid:]


def chances(made: Iterable[Made], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Tokens with the logarithms of their chances, and the likeliest ones'."""
    return [
        {
            **_chance(tokenizer, each.token, each.logprob or 0.0),
            "top_logprobs": [_chance(tokenizer, token, value) for token, value in each.top],
        }
        for each in made
    ]


def _chance(tokenizer: Tokenizer, token: int, value: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(token)
    return {
        "id": token,
        "token": data.decode(errors="replace"),
        "bytes": list(data),
        "logprob": max(value, _LEAST_LOGPROB),
    }
