"""What a request to Anthropic's endpoints may hold; /openapi.json is written from it."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from moestream.engine.options import SamplingParams
from moestream.server.request import AnswerRequest, Whole
from moestream.server.sampling import SamplingFields
from moestream.tokenizer import Tokenizer

Blocks = list[dict[str, Any]]


class Turn(BaseModel):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | Blocks


class ToolChoice(BaseModel):
    """Whether tools are to be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(BaseModel):
    """Whether the model is to reason before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Whole | None = Field(None, ge=0, description="Not enforced; max_tokens is.")


class OutputConfig(BaseModel):
    """What the answer is to be like."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class CountRequest(AnswerRequest):
    """The body of /v1/messages/count_tokens: what makes the prompt."""

    neutral: ClassVar = {"mcp_servers": ([],), "container": ()}

    messages: list[Turn]
    system: str | Blocks | None = None
    tools: Blocks | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = Field(
        None, description="The name that output_config.format had before."
    )
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesRequest(CountRequest):
    """The body of /v1/messages."""

    max_tokens: Whole = Field(ge=0)
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None

    def sampling(self, defaults: SamplingParams, tokenizer: Tokenizer) -> SamplingParams:
        """How tokens are drawn.

        Raises:
            APIError: a value is out of range; its field is named.
        """
        given = SamplingFields.model_construct(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
        )
        return given.sampling(defaults, tokenizer)
