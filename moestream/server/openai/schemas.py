"""What a request to OpenAI's endpoints may hold; /openapi.json is written from it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moestream.server.prompts import joined_text
from moestream.server.request import Whole
from moestream.server.sampling import SamplingFields
from moestream.tokenizer import Tokenizer


class Message(BaseModel):
    """One turn; what else it holds is the template's to read."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    function_call: None = None

    @field_validator("tool_calls")
    @classmethod
    def _are_calls(cls, calls: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        for call in calls or ():
            match call:
                case {"function": {"name": str()}}:
                    pass
                case _:
                    raise ValueError("a call has no function with a name")
        return calls


class Prompt(SamplingFields):
    """What makes the prompt of a chat."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    reasoning_format: Literal["none", "auto", "deepseek"] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class Prediction(BaseModel):
    """What the client thinks that the answer will be, as of a file that is edited."""

    type: Literal["content"] = "content"
    content: str | list[dict[str, Any]]


class ChatRequest(Prompt):
    """The body of /v1/chat/completions."""

    prediction: Prediction | None = Field(
        None, description="Guessed ahead where the server guesses; changes no token."
    )

    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = None
    n_probs: Whole | None = None
    response_format: dict[str, Any] | None = None
    json_schema: Any = None
    grammar: str | None = None
    verbose: bool | None = None

    def predicted(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens that the answer may be.

        Raises:
            APIError: the prediction has parts that are no text.
        """
        if self.prediction is None:
            return []
        text = joined_text(self.prediction.content, "prediction", "prediction")
        return tokenizer.encode(text, add_special=False, parse_special=False)


class CompletionRequest(SamplingFields):
    """The body of /v1/completions."""

    prompt: str | list[Any] | dict[str, Any]
    echo: bool | None = None
    logprobs: int | None = None
    json_schema: Any = None
    grammar: str | None = None


class LlamaRequest(SamplingFields):
    """The body of /completion, llama-server's own."""

    prompt: str | list[Any] | dict[str, Any]
    n_probs: Whole | None = None
    return_tokens: bool | None = None
    response_fields: list[str] | None = None
    json_schema: Any = None
    grammar: str | None = None
