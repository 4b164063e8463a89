"""The `anthropic` client: messages, streams, tools, forms."""

import asyncio
from typing import Any, Literal

import anthropic
from pydantic import BaseModel

SAID: Any = [{"role": "user", "content": "What is the capital of Italy?"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ASKED: Any = {"model": "demo", "max_tokens": 200}


class Place(BaseModel):
    """What is parsed."""

    city: Literal["Rome", "Oslo"]
    large: bool


def _client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="x", base_url=url, max_retries=0)


def check_messages(url: str) -> None:
    """An answer."""
    told = _client(url).messages.create(**ASKED, messages=SAID, system="Be brief.")
    assert "Rome" in told.content[0].text


def check_stream(url: str) -> None:
    """The same in parts."""
    with _client(url).messages.stream(**ASKED, messages=SAID) as stream:
        text = "".join(stream.text_stream)
        assert text == stream.get_final_message().content[0].text
    assert text == _client(url).messages.create(**ASKED, messages=SAID).content[0].text


def check_async(url: str) -> None:
    """Four at once say the same."""

    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key="x", base_url=url) as client:
            create = client.messages.create
            told = await asyncio.gather(*(create(**ASKED, messages=SAID) for _ in range(4)))
            return [each.content[0].text for each in told]

    assert len(set(asyncio.run(ask()))) == 1


def check_tools_loop(url: str) -> None:
    """A call, its result, an answer."""
    client = _client(url)
    told = client.messages.create(
        **ASKED, messages=SAID, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}
    )
    assert told.stop_reason == "tool_use"
    calls = [block for block in told.content if block.type == "tool_use"]
    assert calls[0].input["city"] in ("Rome", "Oslo")
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": "sunny"} for c in calls]
    more = [
        {"role": "assistant", "content": told.content},
        {"role": "user", "content": results},
    ]
    told = client.messages.create(**ASKED, messages=[*SAID, *more], tools=[TOOL])
    assert told.content


def check_tools_stream(url: str) -> None:
    """A call in parts, gathered by the client."""
    with _client(url).messages.stream(
        **ASKED, messages=SAID, tools=[TOOL], tool_choice={"type": "any"}
    ) as stream:
        told = stream.get_final_message()
    assert told.content[0].input["city"] in ("Rome", "Oslo")


def check_parse(url: str) -> None:
    """A model of pydantic."""
    told = _client(url).messages.parse(**ASKED, messages=SAID, output_format=Place)
    assert isinstance(told.parsed_output, Place)


def check_count_tokens(url: str) -> None:
    """What they become."""
    assert _client(url).messages.count_tokens(model="demo", messages=SAID).input_tokens > 5


def check_errors(url: str) -> None:
    """A model that is not there."""
    try:
        _client(url).messages.create(model="other", max_tokens=1, messages=SAID)
    except anthropic.BadRequestError as error:
        assert error.type == "invalid_request_error"  # noqa: PT017
        return
    raise AssertionError("not refused")
