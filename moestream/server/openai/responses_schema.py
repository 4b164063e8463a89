"""What a request to /v1/responses may hold; /openapi.json is written from it."""

from typing import Any

from pydantic import BaseModel, Field

from moestream.engine.options import SamplingParams
from moestream.server.errors import APIError
from moestream.server.request import AnswerRequest, Whole
from moestream.server.sampling import SamplingFields
from moestream.tokenizer import Tokenizer

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "previous_response_id": ("",),
    "conversation": (),
    "prompt": (),
    "truncation": ("disabled",),
    "top_logprobs": (0,),
    "context_management": ([],),
}


class Reasoning(BaseModel):
    """How the model is to reason."""

    effort: str | None = None


class Text(BaseModel):
    """What the text is to be like."""

    format: dict[str, Any] | None = None


class ResponsesRequest(AnswerRequest):
    """The body of /v1/responses."""

    neutral = _NEUTRAL

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Whole | None = Field(None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    metadata: dict[str, Any] | None = None
    include: list[str] | None = None
    store: bool | None = None
    stream: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None

    def check(self) -> None:
        """See that nothing is asked for that is not to be had.

        Raises:
            APIError: something is; it is named.
        """
        super().check()
        if "message.output_text.logprobs" in (self.include or ()):
            raise APIError(400, "logprobs are not supported here; leave them out", param="include")
        if not self.input and not isinstance(self.input, str):
            raise APIError(400, "input: at least one item is needed", param="input")

    def sampling(self, defaults: SamplingParams, tokenizer: Tokenizer) -> SamplingParams:
        """How tokens are drawn.

        Raises:
            APIError: a value is out of range; its field is named.
        """
        given = SamplingFields.model_construct(temperature=self.temperature, top_p=self.top_p)
        return given.sampling(defaults, tokenizer)
