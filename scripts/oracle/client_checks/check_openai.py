"""The `openai` client: chats, streams, tools, forms, responses, errors."""

import asyncio
import json
from typing import Any, Literal

import openai
from pydantic import BaseModel

SAID: Any = [{"role": "user", "content": "What is the capital of Italy?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: Any = {"name": "weather", "description": "The weather", "parameters": PARAMETERS}
TOOL: Any = {"type": "function", "function": FUNCTION}


class Place(BaseModel):
    """What is parsed."""

    city: Literal["Rome", "Oslo"]
    large: bool


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0)


def check_chat(url: str) -> None:
    """An answer."""
    told = _client(url).chat.completions.create(model="demo", messages=SAID)
    assert "Rome" in (told.choices[0].message.content or "")


def check_chat_stream(url: str) -> None:
    """The same in parts."""
    client = _client(url)
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=SAID, stream=True, stream_options=options
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    whole = client.chat.completions.create(model="demo", messages=SAID)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage or chunks[-1].usage is not None


def check_async(url: str) -> None:
    """Eight at once say the same."""

    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1") as client:
            create = client.chat.completions.create
            told = await asyncio.gather(*(create(model="demo", messages=SAID) for _ in range(8)))
            return [each.choices[0].message.content for each in told]

    assert len(set(asyncio.run(ask()))) == 1


def check_tools_loop(url: str) -> None:
    """A call, its result, an answer."""
    client, messages = _client(url), list(SAID)
    told = client.chat.completions.create(
        model="demo", messages=messages, tools=[TOOL], tool_choice="required"
    )
    message = told.choices[0].message
    assert told.choices[0].finish_reason == "tool_calls"
    messages.append(message)
    for call in message.tool_calls or ():
        assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "It is sunny."})
    told = client.chat.completions.create(model="demo", messages=messages, tools=[TOOL])
    assert told.choices[0].message.content


def check_tools_stream(url: str) -> None:
    """A call in parts, gathered by the client."""
    with _client(url).chat.completions.stream(
        model="demo", messages=SAID, tools=[TOOL], tool_choice="required"
    ) as stream:
        told = stream.get_final_completion()
    (first, *_) = told.choices[0].message.tool_calls or ()
    assert json.loads(first.function.arguments)["city"] in ("Rome", "Oslo")


def check_parse(url: str) -> None:
    """A model of pydantic."""
    told = _client(url).chat.completions.parse(model="demo", messages=SAID, response_format=Place)
    assert isinstance(told.choices[0].message.parsed, Place)


def check_responses(url: str) -> None:
    """The newer API."""
    told = _client(url).responses.create(model="demo", input=SAID[0]["content"])
    assert "Rome" in told.output_text


def check_responses_stream(url: str) -> None:
    """Its events."""
    with _client(url).responses.stream(model="demo", input=SAID) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert text == stream.get_final_response().output_text


def check_responses_tools_loop(url: str) -> None:
    """A call, its result, an answer."""
    client, tool = _client(url), {"type": "function", "strict": True, **FUNCTION}
    told = client.responses.create(
        model="demo", input=SAID, tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = told.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    told = client.responses.create(model="demo", input=[*SAID, call, output], tools=[tool])
    assert told.output_text


def check_responses_parse(url: str) -> None:
    """A model of pydantic."""
    told = _client(url).responses.parse(model="demo", input=SAID, text_format=Place)
    assert isinstance(told.output_parsed, Place)


def check_errors(url: str) -> None:
    """A model that is not there."""
    try:
        _client(url).chat.completions.create(model="other", messages=SAID)
    except openai.BadRequestError as error:
        assert error.param == "model"  # noqa: PT017
        return
    raise AssertionError("not refused")
