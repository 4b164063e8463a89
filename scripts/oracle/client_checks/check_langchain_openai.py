"""LangChain's client of OpenAI's API."""

from typing import Any, Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

ASKED = "What is the capital of Italy?"


class Place(BaseModel):
    """A place."""

    city: Literal["Rome", "Oslo"]
    large: bool


@tool
def weather(city: Literal["Rome", "Oslo"]) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def _chat(url: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model="demo", base_url=f"{url}/v1", api_key="x", max_retries=0, **more)  # type: ignore[arg-type]


def check_invoke(url: str) -> None:
    """An answer."""
    assert "Rome" in _chat(url).invoke(ASKED).text


def check_stream(url: str) -> None:
    """The same in parts."""
    text = "".join(chunk.text for chunk in _chat(url).stream(ASKED))
    assert text == _chat(url).invoke(ASKED).text


def check_tools_loop(url: str) -> None:
    """A call, its result, an answer."""
    said: list[Any] = [("user", ASKED)]
    message = _chat(url).bind_tools([weather], tool_choice="any").invoke(said)
    said += [message, *(weather.invoke(call) for call in message.tool_calls)]
    assert "sunny" in said[-1].content
    told = _chat(url).bind_tools([weather]).invoke(said)
    assert told.text or told.tool_calls, told


def check_structured_output(url: str) -> None:
    """A model of pydantic, by a schema and by a call."""
    for method in ("json_schema", "function_calling"):
        made = _chat(url).with_structured_output(Place, method=method).invoke(ASKED)  # type: ignore[arg-type]
        assert isinstance(made, Place), method


def check_responses(url: str) -> None:
    """The newer API, whole and in parts."""
    chat = _chat(url, use_responses_api=True)
    assert "Rome" in chat.invoke(ASKED).text
    assert "Rome" in "".join(chunk.text for chunk in chat.stream(ASKED))
