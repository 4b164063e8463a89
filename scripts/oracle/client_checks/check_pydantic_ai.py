"""Pydantic AI's agents."""

import asyncio
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

ASKED = "What is the capital of Italy?"


class Place(BaseModel):
    """A place."""

    city: Literal["Rome", "Oslo"]
    large: bool


def _agent(url: str, kind: Any = OpenAIChatModel, **more: Any) -> Any:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="x")
    return Agent(kind("demo", provider=provider), **more)


def check_run(url: str) -> None:
    """An answer."""
    assert "Rome" in _agent(url).run_sync(ASKED).output


def check_stream(url: str) -> None:
    """The same in parts."""

    async def ask() -> str:
        async with _agent(url).run_stream(ASKED) as run:
            return "".join([part async for part in run.stream_text(delta=True)])

    assert "Rome" in asyncio.run(ask())


def check_output_by_a_call(url: str) -> None:
    """A model of pydantic, by a call that must be made."""
    assert isinstance(_agent(url, output_type=Place).run_sync(ASKED).output, Place)


def check_output_by_a_schema(url: str) -> None:
    """A model of pydantic, by a schema."""
    made = _agent(url, output_type=NativeOutput(Place)).run_sync(ASKED).output
    assert isinstance(made, Place)


def check_responses(url: str) -> None:
    """The newer API."""
    assert "Rome" in _agent(url, OpenAIResponsesModel).run_sync(ASKED).output
    made = _agent(url, OpenAIResponsesModel, output_type=Place).run_sync(ASKED).output
    assert isinstance(made, Place)
