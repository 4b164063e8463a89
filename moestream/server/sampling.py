"""The fields of a request that say how its answer is drawn, and what they become.

Owns OpenAI's and llama-server's names for them, and which of the known ones cannot be honoured.
The ranges of numbers are ``SamplingParams``'.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from pydantic import BaseModel, Field

from moestream.engine.options import SamplingParams, draw_seed
from moestream.engine.sampler_names import read_samplers
from moestream.server.biases import BANNED, read_biases
from moestream.server.errors import APIError
from moestream.server.model import Defaults
from moestream.server.request import AnswerRequest, Whole
from moestream.tokenizer import Tokenizer

_MOST_CHOICES = 64
_MOST_LOGPROBS = 100
_MOST_STOPS = 64
"""Programs for playing roles send some dozens: the names of all who take part."""
_LONGEST_STOP = 256
"""In characters; all are looked for in each token's text, between all others' tokens."""
_CHANCE = (-1, 2**32 - 1)
"""Seeds that ask for one by chance; the second is llama.cpp's."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "adaptive_target": (-1,),
    "min_keep": (0, 1),
    "n_indent": (0,),
    "t_max_predict_ms": (-1, 0),
    "post_sampling_probs": (False,),
    "lora": ([],),
    "store": (False,),
    "background": (False,),
    "modalities": (["text"],),
    "best_of": (1,),
    "suffix": ("",),
    "multimodal_data": ([],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_budget_tokens": (-1,),
    "thinking_budget_tokens": (-1,),
    "reasoning_control": (False,),
    "audio": (),
    "web_search_options": (),
    "echo": (False,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
"""Fields that are known and not to be had, with the values that ask for nothing."""


class StreamOptions(BaseModel):
    """What else a stream tells."""

    include_usage: bool | None = None


class SamplingFields(AnswerRequest):
    """What all requests for an answer may say; None leaves it to the server's own defaults."""

    neutral = NEUTRAL

    max_tokens: Whole | None = Field(None, ge=-1, description="-1 is no limit.")
    n_predict: Whole | None = Field(None, ge=-1, description="llama-server's name of max_tokens.")
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    min_p: float | None = None
    seed: Whole | None = None
    repeat_penalty: float | None = None
    repeat_last_n: Whole | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: Whole | None = None
    dry_penalty_last_n: Whole | None = None
    dry_sequence_breakers: list[str] | None = None
    top_n_sigma: float | None = None
    typical_p: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    mirostat: Whole | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: str | list[str] | None = Field(
        None, description="Their order: names, or llama.cpp's letters."
    )
    logit_bias: dict[str, float | bool] | list[tuple[int | str, float | bool]] | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    n: Whole | None = Field(None, ge=1, le=_MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None

    def sampling(self, defaults: SamplingParams, tokenizer: Tokenizer) -> SamplingParams:
        """How tokens are drawn; ``biases`` are of the tokenizer's tokens.

        Raises:
            APIError: a value is out of range; its field is named.
        """
        given = {
            field.name: value
            for field in fields(SamplingParams)
            if (value := getattr(self, field.name)) is not None
        }
        if self.samplers is not None:
            given["samplers"] = _order(self.samplers)
        if self.dry_sequence_breakers is not None:
            breakers = checked_stops(self.dry_sequence_breakers, "dry_sequence_breakers")
            given["dry_sequence_breakers"] = breakers
        given["logit_bias"] = tuple(self._biases(defaults, tokenizer).items())
        if given.get("top_k") == -1:
            given["top_k"] = 0
        seed = given.get("seed", defaults.seed)
        if seed is None or seed in _CHANCE:
            seed = draw_seed()
        given["seed"] = seed % 2**32
        try:
            return replace(defaults, **given)
        except ValueError as error:
            raise APIError(400, str(error), param=str(error).split()[0]) from None

    def limit(self, defaults: Defaults) -> int | None:
        """Tokens at most; None is no limit."""
        given = self.n_predict if self.n_predict is not None else self.max_tokens
        if given is None:
            return defaults.max_tokens
        return None if given < 0 else given

    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end the answer.

        Raises:
            APIError: too many, or one that is too long.
        """
        return checked_stops([self.stop] if isinstance(self.stop, str) else self.stop, "stop")

    def check_ends(self, constraint: object | None) -> None:
        """See that what must have a form may end.

        Raises:
            APIError: it may not.
        """
        if constraint is not None and self.ignore_eos:
            raise APIError(400, "ignore_eos does not go with a form that ends", param="ignore_eos")

    def _biases(self, defaults: SamplingParams, tokenizer: Tokenizer) -> dict[int, float]:
        """What is added to the scores of which tokens.

        Raises:
            APIError: see ``read_biases``.
        """
        ignored = self.chosen("ignore_eos", defaults.ignore_eos)
        ends = dict.fromkeys(tokenizer.end_ids, BANNED) if ignored else {}
        return ends | read_biases(self.chosen("logit_bias", defaults.logit_bias), tokenizer)

    def chosen(self, name: str, default: Any) -> Any:
        """A field's value, or what stands for None."""
        value = getattr(self, name)
        return default if value is None else value


def _order(given: str | Sequence[str]) -> tuple[str, ...]:
    """An order of samplers; the one of adaptive-p asks for nothing, as its target is off."""
    if not isinstance(given, str):
        given = [name for name in given if name not in ("adaptive_p", "adaptive-p")]
    try:
        return read_samplers(given)
    except ValueError as error:
        raise APIError(400, f"samplers: {error}", param="samplers") from None


def checked_stops(given: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """Texts that end an answer; empty ones are none.

    Raises:
        APIError: too many, or one that is too long.
    """
    stops = tuple(filter(None, given or ()))
    longest = max(map(len, stops), default=0)
    if len(stops) > _MOST_STOPS or longest > _LONGEST_STOP:
        found = f"{len(stops)} texts" if len(stops) > _MOST_STOPS else f"a text of {longest}"
        raise APIError(
            400,
            f"{name} has {found}, expected at most {_MOST_STOPS} texts of at most {_LONGEST_STOP} "
            "characters",
            param=name,
        )
    return stops


def choice(sampling: SamplingParams, index: int) -> SamplingParams:
    """How one of several choices is drawn: each has a seed of its own, which reruns repeat."""
    return replace(sampling, seed=((sampling.seed or 0) + index) % 2**32)


def checked_logprobs(count: int | None, name: str) -> int | None:
    """How many likeliest tokens are to be told.

    Raises:
        APIError: too many, or fewer than none.
    """
    if count is not None and not 0 <= count <= _MOST_LOGPROBS:
        raise APIError(400, f"{name} is {count}, expected 0 to {_MOST_LOGPROBS}", param=name)
    return count
