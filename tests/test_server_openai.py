"""OpenAI's own client against the server: what it makes of the answers."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from alphabet_model import ALPHABET
from pydantic import BaseModel, Field
from serving import WEATHER, Served, serving

KEY = "a key of ours"
SAID = [{"role": "user", "content": "hi"}]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{{ '<tool_call>' if tools }}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}


class Answer(BaseModel):
    yes: bool
    count: int = Field(ge=1, le=9)


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet, keys=(KEY,), chat_template=TEMPLATE) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as made:
        yield made


def test_an_answer(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(model="alphabet", messages=SAID)
    assert told.choices[0].message.content == ALPHABET
    assert told.choices[0].finish_reason == "stop"
    assert told.usage is not None
    assert told.usage.prompt_tokens_details is not None


def test_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="alphabet", messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == ALPHABET
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(ALPHABET.encode()) + 1


def test_many_at_once(server: Served) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:

            async def one(number: int) -> str | None:
                if number % 2:
                    told = await client.chat.completions.create(model="alphabet", messages=SAID)
                    return told.choices[0].message.content
                stream = await client.chat.completions.create(
                    model="alphabet", messages=SAID, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            return await asyncio.gather(*map(one, range(12)))

    assert asyncio.run(ask()) == [ALPHABET] * 12


def test_text_and_models(client: openai.OpenAI) -> None:
    told = client.completions.create(model="alphabet", prompt="ab", max_tokens=3, logprobs=1)
    assert told.choices[0].text == "cde"
    assert told.choices[0].logprobs is not None
    assert told.choices[0].logprobs.tokens == ["c", "d", "e"]
    assert [model.id for model in client.models.list()] == ["alphabet"]
    assert client.models.retrieve("alphabet").id == "alphabet"


def test_errors_are_those_that_it_knows(client: openai.OpenAI, server: Served) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="alphabet", messages=SAID, top_p=7)
    assert caught.value.param == "top_p"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    wrong = openai.OpenAI(api_key="wrong", base_url=f"{server.url}/v1", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="alphabet", input="x")


def test_an_answer_that_is_parsed(client: openai.OpenAI) -> None:
    told = client.chat.completions.parse(
        model="alphabet", messages=SAID, response_format=Answer, temperature=1.0, max_tokens=200
    )
    assert isinstance(told.choices[0].message.parsed, Answer)


@pytest.mark.parametrize("seed", range(5))
def test_a_form_holds_however_hot(server: Served, seed: int) -> None:
    schema = Answer.model_json_schema() | {"additionalProperties": False}
    told = server.chat(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        temperature=1.0,
        top_k=0,
        seed=seed,
    )
    Answer.model_validate_json(told["choices"][0]["message"]["content"])
    assert told["choices"][0]["finish_reason"] == "stop"


def test_forms_of_text(server: Served) -> None:
    for form in (
        {"grammar": 'root ::= "x"{3}'},
        {"json_schema": {"const": "xxx"}},
        {"response_format": {"type": "regex", "pattern": "x{3}"}},
    ):
        told = server.chat(**form)["choices"][0]["message"]["content"]
        assert told.strip('"') == "xxx"
    assert server.post("/completion", prompt="a", grammar='root ::= "no"').json()["content"] == "no"
    told = server.post("/v1/completions", prompt="a", json_schema={"const": 5}).json()
    assert told["choices"][0]["text"] == "5"


@pytest.mark.parametrize(
    "form",
    [
        {"response_format": {"type": "sound"}},
        {"response_format": {"type": "json_object", "schema": 123}},
        {"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
        {"response_format": {"type": "json_schema"}},
        {"grammar": "root ::= this is (not valid GBNF"},
        {"grammar": 'root ::= "x"', "json_schema": {}},
        {"grammar": 'root ::= "x"', "ignore_eos": True},
        {"tools": [{"type": "function"}]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "none"}}},
        {"tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": "perhaps"},
    ],
)
def test_what_cannot_be_enforced_is_refused(server: Served, form: dict[str, object]) -> None:
    assert server.refused(**form)["param"] in {*form, "tool_choice"}


def test_a_tool_that_must_be_called(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(
        model="alphabet",
        messages=SAID,
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=1.0,
    )
    (choice,) = told.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    _check(call.function.name, call.function.arguments)
    answered = client.chat.completions.create(
        model="alphabet",
        messages=[
            *SAID,
            choice.message,
            {"role": "tool", "tool_call_id": call.id, "content": "sun"},
        ],
        tools=[TOOL],
    )
    assert answered.choices[0].message.content == ALPHABET


def test_a_tool_call_that_is_streamed(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    stream = client.chat.completions.create(
        model="alphabet",
        messages=SAID,
        tools=[TOOL],
        tool_choice=choice,
        stream=True,
        parallel_tool_calls=False,
    )
    name, arguments, ids, finish = "", "", set(), None
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.index == 0
            name += call.function.name or ""
            arguments += call.function.arguments or ""
            ids.add(call.id)
        finish = chunk.choices[0].finish_reason or finish
    assert finish == "tool_calls"
    assert len(ids - {None}) == 1
    _check(name, arguments)


def _check(name: str, arguments: str) -> None:
    assert name == "weather"
    told = json.loads(arguments)
    assert told["city"] in ("Rome", "Oslo")
    assert 1 <= told["days"] <= 9


def test_tools_that_need_not_be_called(server: Served) -> None:
    for choice in ("auto", "none", None):
        told = server.chat(tools=[TOOL], tool_choice=choice)
        assert told["choices"][0]["message"] == {"role": "assistant", "content": ALPHABET}
