"""LiteLLM, as a client of OpenAI's API and of Anthropic's."""

import json
from typing import Any

import litellm

litellm.suppress_debug_info = True
SAID = [{"role": "user", "content": "What is the capital of Italy?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}


def _ask(url: str, **more: Any) -> Any:
    asked = {"model": "openai/demo", "api_base": f"{url}/v1", "api_key": "x", "messages": SAID}
    return litellm.completion(**{**asked, **more})


def check_completion(url: str) -> None:
    """An answer."""
    assert "Rome" in _ask(url).choices[0].message.content


def check_stream(url: str) -> None:
    """The same in parts."""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in _ask(url, stream=True))
    assert text == _ask(url).choices[0].message.content


def check_tools(url: str) -> None:
    """A call."""
    message = _ask(url, tools=[TOOL], tool_choice="required").choices[0].message
    assert json.loads(message.tool_calls[0].function.arguments)["city"] in ("Rome", "Oslo")


def check_anthropic(url: str) -> None:
    """An answer by the other API."""
    told = _ask(url, model="anthropic/demo", api_base=url, max_tokens=99)
    assert "Rome" in told.choices[0].message.content


def check_anthropic_stream(url: str) -> None:
    """The same in parts."""
    chunks = _ask(url, model="anthropic/demo", api_base=url, max_tokens=99, stream=True)
    assert "Rome" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
