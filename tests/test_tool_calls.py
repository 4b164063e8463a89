"""What models write, told apart: against llama.cpp's parsers, and however it is cut."""

import json
import lzma
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabulary_files import write_bytes_vocabulary

from moestream.chat.output import Output, OutputParser, OutputStream
from moestream.chat.reasoning import (
    AROUND_ANSWERS,
    HARMONY,
    KIMI_K3,
    MARKERS,
    Markers,
    Piece,
    find_markers,
)
from moestream.chat.template import ChatTemplate
from moestream.chat.tool_calls import CallArguments, CallBegin, CallEnd, ToolFormat, formats
from moestream.chat.tool_calls.formats import find_tool_format
from moestream.chat.tool_calls.generic import with_tools
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
THINK = MARKERS[0]
MINIMAX_M3 = next(markers for markers in MARKERS if markers.open == "<mm:think>")
BY_NAME = {
    value.name: value
    for value in vars(formats).values()
    if hasattr(value, "specials") and not isinstance(value, type)
}
# Of the templates that are not in tests/data/chat.
OTHERS = {
    "Cohere2MoE": ("cohere", replace(MARKERS[4], around=AROUND_ANSWERS[2])),
    "Kimi-K2-Instruct": ("kimi", None),
    "LFM2.5-Instruct": ("lfm2", THINK),
    "MiMo-VL": ("hermes", None),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", None),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen-coder", THINK),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", None),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "Qwen-QwQ-32B": ("hermes", THINK),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "StepFun3.5-Flash": ("qwen-coder", THINK),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek-fenced", THINK),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek-fenced", THINK),
    "ibm-granite-granite-4.1": ("hermes", None),
    "llama-cpp-deepseek-r1": ("deepseek-fenced", THINK),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral", MARKERS[2]),
    "unsloth-mistral-Devstral-Small-2507": ("mistral", None),
}
TOKENS = {"openai-gpt-oss-120b": "<|channel|>", "tencent-Hy3": "<think:opensource>"}
ON_PURPOSE = {
    # Their end tokens and stray markers are not text of an output here, or are told as they are.
    ("inclusionai-ling-3.0-flash", "<|role_end|>"),
    ("google-gemma-4-31B-it", "<channel|>"),
    ("google-gemma-4-31B-it", "<|channel><|channel>"),
    # Calls of what nobody asked for are not dropped.
    ("openai-gpt-oss-120b", "to=container.exec"),
    ("openai-gpt-oss-120b", "to=python"),
    # What is cut off before its arguments is text.
    ("Cohere2MoE", 'I\'m\nthinking<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0"'),
    # A fence around JSON is the model's own.
    ("mistralai-Ministral-3-14B-Reasoning-2512", "```json"),
}


def tools_of(*names: str, **properties: Any) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": properties}
    return [{"type": "function", "function": {"name": n, "parameters": parameters}} for n in names]


TOOLS = tools_of("f", "g", s={"type": "string"}, n={"type": "integer"}, o={})


def run(parser: OutputParser, pieces: Sequence[str]) -> list[Output]:
    told = [event for piece in pieces for event in parser.add(piece)]
    return told + parser.finish()


def summary(told: Sequence[Output]) -> dict[str, Any]:
    """What it comes to in the end; all arguments must be JSON."""
    calls: list[list[Any]] = []
    text = {"answer": "", "reasoning": ""}
    ended = 0
    for event in told:
        match event:
            case Piece(kind, said):
                text[kind] += said
            case CallBegin(index, name, _):
                assert index == len(calls) == ended
                calls.append([name, "", None])
            case CallArguments(index, said):
                assert index == len(calls) - 1 == ended
                calls[index][1] += said
            case CallEnd(index, whole):
                assert index == len(calls) - 1 == ended
                calls[index][1:] = [json.loads(calls[index][1]), whole]
                assert isinstance(calls[index][1], dict)
                ended += 1
    assert ended == len(calls)
    return {**text, "calls": calls}


def read(
    format: ToolFormat,
    output: str,
    *,
    markers: Markers | None = None,
    inside: bool = False,
    tools: Any = TOOLS,
) -> dict[str, Any]:
    """The same however it is cut."""
    whole = summary(run(OutputParser(format, markers, tools, inside=inside), [output]))
    single = summary(run(OutputParser(format, markers, tools, inside=inside), list(output)))
    assert single == whole
    return whole


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    packed = (DATA / "chat" / "templates.json.xz").read_bytes()
    return {
        name.removesuffix(".jinja"): template["source"]
        for name, template in json.loads(lzma.decompress(packed))["templates"].items()
    }


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """By template, with the tokens by which a model is known; without them for any other."""
    found = {}
    for name, token in {"": "", **TOKENS}.items():
        specials = [(token, TokenType.CONTROL)] if token else []
        path = tmp_path_factory.mktemp("v") / "v.gguf"
        found[name] = Tokenizer.from_gguf(
            GGUFFile.open(write_bytes_vocabulary(path, specials=specials))
        )
    return found


def golden_cases() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.stem, case)
        for path in sorted((DATA / "tool_calls").glob("*.json"))
        for case in json.loads(path.read_text())
        if not any(path.stem == name and text in case["output"] for name, text in ON_PURPOSE)
    ]


CASES = golden_cases()


def partial(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return None


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_outputs_are_read_as_llama_cpp_reads_them(
    name: str, templates: dict[str, str], vocabularies: dict[str, Tokenizer]
) -> None:
    if name in templates:
        vocabulary = vocabularies[name if name in TOKENS else ""]
        found = find_tool_format(templates[name], vocabulary)
        format, markers = found, find_markers(templates[name], vocabulary)
    else:
        format, markers = BY_NAME[OTHERS[name][0]], OTHERS[name][1]
    assert format is not None
    compared = 0
    for case in (case for stem, case in CASES if stem == name):
        inside = markers is not None and case["prompt"].rstrip().endswith(markers.open)
        ended = markers is not None and any(map(case["output"].startswith, markers.dropped))
        left = (inside and not ended) or (markers is not None and markers.open in case["output"])
        if not case["reasoning"] and left:
            continue  # there llama.cpp leaves it where it is
        compared += 1
        said = read(format, case["output"], markers=markers, inside=inside, tools=case["tools"])
        assert said["answer"].strip() == case["content"].strip()
        assert said["reasoning"].strip() == case["reasoning_content"].strip()
        assert [call[0] for call in said["calls"]] == [call["name"] for call in case["calls"]]
        for (_, ours, whole), call in zip(said["calls"], case["calls"], strict=True):
            theirs = partial(call["arguments"])
            assert ours == ({} if theirs is None else theirs)
            assert whole == (theirs is not None)
    assert compared


@pytest.mark.parametrize(
    ("name", "key"), [("Kimi-K3", "o"), ("Kimi-K3", 'a"&&quot;b'), ("MiniMax-M3", "o")]
)
def test_what_a_template_renders_is_read_again(
    name: str, key: str, templates: dict[str, str], vocabularies: dict[str, Tokenizer]
) -> None:
    """A conversation's last turn, as the model would have written it."""
    format = find_tool_format(templates[name], vocabularies[""])
    markers = find_markers(templates[name], vocabularies[""])
    assert format is not None
    assert markers is not None
    asked = {"role": "user", "content": "Hi"}
    deep = {"s": "a\n<b>", "n": 5, key: {"a": [1, {"b": "x"}]}}
    calls = [{"id": n, "function": {"name": n, "arguments": deep}} for n in "fg"]
    turn = {"role": "assistant", "content": "Well.", "reasoning_content": "Hm.\n\nSo."}
    template = ChatTemplate.from_source(templates[name], bos_token="", eos_token="")
    start = template.render([asked], tools=TOOLS)
    turns = [asked, turn | {"tool_calls": calls}]
    whole = template.render(turns, tools=TOOLS, add_generation_prompt=False)
    assert whole.startswith(start)
    said = whole.removeprefix(start).partition("[e~[")[0].removesuffix("<|end_of_msg|>")
    inside = start.endswith(markers.open)
    found = read(format, said, markers=markers, inside=inside)
    expected = [["f", deep, True], ["g", deep, True]]
    assert found == {"answer": "Well.", "reasoning": "Hm.\n\nSo.", "calls": expected}


# Of formats that llama.cpp has no outputs of.
@pytest.mark.parametrize(
    ("format", "output"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>\n'),
        ("hermes", '<tool_call>{"arguments": {"n": 1}, "name": "f"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "parameters": "{\\"n\\": 1}"}</tool_call>'),
        ("hermes", '<tool_call>{"id": "x", "name": "f", "arguments": {"n": 1}, "y": []}'),
        ("hunyuan", '<tool_calls>[{"name": "f", "arguments": {"n": 1}}]</tool_calls>'),
        ("granite", '<|tool_call|>[{"name": "f", "arguments": {"n": 1}}]'),
        ("minimax-json", '<tool_calls>\n{"name": "f", "arguments": {"n": 1}}\n</tool_calls>'),
        ("cohere", '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": '
         '{"n": 1}}\n]<|END_ACTION|>'),
        ("hunyuan-tags", "<tool_calls:opensource>\n<tool_call:opensource>f<tool_sep:opensource>\n"
         "<arg_key:opensource>n</arg_key:opensource>\n<arg_value:opensource>1"
         "</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>"),
        ("kimi", '<|tool_call_begin|>functions.f:3<|tool_call_argument_begin|> {"n": 1}'),
        ("glm", "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"),
        ("dsml", '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="n" string="false">1'
         "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"),
        ("dsml-tools", '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="f">\n'
         '<｜DSML｜parameter name="n" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
         "</｜DSML｜tool_calls>"),
        ("lfm2", "<|tool_call_start|>[f(n=1)]<|tool_call_end|>"),
        ("gemma", "<|tool_call>call:f{n:1}<tool_call|>"),
    ],
)  # fmt: skip
def test_a_call_is_read(format: str, output: str) -> None:
    expected = {"answer": "Well.", "reasoning": "", "calls": [["f", {"n": 1}, True]]}
    assert read(BY_NAME[format], "Well.\n\n" + output) == expected


M3 = "]<]minimax[>["


def tagged(name: str, *parts: str) -> str:
    return f"{M3}<{name}>{''.join(parts)}{M3}</{name}>"


def m3_call(*members: str) -> str:
    called = f'{M3}<invoke name="f">{"".join(members)}{M3}</invoke>'
    return f"{M3}<tool_call>\n{called}\n{M3}</tool_call>"


@pytest.mark.parametrize(
    ("members", "arguments"),
    [
        ((), {}),
        ((tagged("s", "<b>5</b>\n"), tagged("n", "5")), {"s": "<b>5</b>\n", "n": 5}),
        ((tagged("o", tagged("a", "1"), "\n", tagged("b", "x")),), {"o": {"a": 1, "b": "x"}}),
        ((tagged("o", tagged("item", "1"), tagged("item", "x")),), {"o": [1, "x"]}),
        ((tagged("l", tagged("item", tagged("t", "1"))),), {"l": [{"t": "1"}]}),
        ((tagged("l"), tagged("d")), {"l": [], "d": {}}),
    ],
)
def test_tags_within_tags_are_objects_and_lists(
    members: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    item = {"type": "object", "properties": {"t": {"type": "string"}}}
    lists = {"l": {"type": "array", "items": item}, "d": {"type": "object"}}
    known = tools_of("f", s={"type": "string"}, n={"type": "integer"}, **lists)
    said = read(BY_NAME["minimax-tags"], f"Well. {m3_call(*members)}", tools=known)
    assert said == {"answer": "Well.", "reasoning": "", "calls": [["f", arguments, True]]}


@pytest.mark.parametrize("ways", [[{"$ref": "#/$defs/E"}] * 40, 5, None])
def test_ways_that_say_nothing_of_a_member_end_at_once(ways: Any) -> None:
    """References that lead to themselves in many ways would take for ever."""
    known = tools_of("f", o={"$ref": "#/$defs/E"})
    known[0]["function"]["parameters"]["$defs"] = {"E": {"anyOf": ways}}
    said = read(BY_NAME["minimax-tags"], m3_call(tagged("o", tagged("a", "1"))), tools=known)
    assert said["calls"] == [["f", {"o": {"a": 1}}, True]]


@pytest.mark.parametrize(
    "output",
    [
        m3_call("x"),
        m3_call(tagged("o", "some words ", tagged("a", "1"))),
        m3_call(tagged("o", tagged("a", "1"), "some words")),
        f"{M3}<tool_call>{M3}<call>",
    ],
)
def test_what_is_no_tag_is_text(output: str) -> None:
    said = read(BY_NAME["minimax-tags"], output)
    assert said["answer"] == output
    assert not any(whole for _, _, whole in said["calls"])


THING = {"type": "object", "properties": {"x": {"type": "string"}}}


@pytest.mark.parametrize(
    "thing", [THING, {"anyOf": [{"$ref": "#/$defs/it"}, {"type": "null"}]}], ids=["plain", "within"]
)
def test_a_member_is_of_the_object_that_describes_it_whatever_a_lists_items_are(
    thing: dict[str, Any],
) -> None:
    ways = [{"type": "array", "items": {"type": "integer"}}, thing]
    defs = {"it": {"$ref": "#/$defs/thing"}, "thing": THING}
    tools = [{"name": "f", "parameters": {"properties": {"o": {"anyOf": ways}}, "$defs": defs}}]
    for members, value in [
        (tagged("x", "5"), {"x": "5"}),
        (tagged("item", "5"), [5]),
    ]:
        said = read(BY_NAME["minimax-tags"], m3_call(tagged("o", members)), tools=tools)
        assert said["calls"] == [["f", {"o": value}, True]]


def test_depth_of_tags_has_an_end() -> None:
    output = m3_call(f"{M3}<a>" * 500)
    assert not any(whole for _, _, whole in read(BY_NAME["minimax-tags"], output)["calls"])


def test_an_answer_may_begin_with_the_end_of_no_reasoning() -> None:
    said = read(BY_NAME["minimax-tags"], "</mm:think>Hi </mm:think>", markers=MINIMAX_M3)
    assert (said["answer"], said["reasoning"]) == ("Hi </mm:think>", "")
    assert read(BY_NAME["hermes"], "</think>Hi", markers=THINK)["answer"] == "</think>Hi"


def test_kimi_k3s_tags_are_no_part_of_an_answer() -> None:
    ended = "Hi, message<|close|>response<|sep|><|close|>message<|sep|>"
    said = read(BY_NAME["kimi-k3"], ended, markers=KIMI_K3)  # the prompt has begun the response
    assert (said["answer"], said["reasoning"]) == ("Hi, message", "")
    opened = f"Hm<|open|>response<|sep|>{ended}"  # with the end of the reasoning forgotten
    said = read(BY_NAME["kimi-k3"], opened, markers=KIMI_K3, inside=True)
    assert (said["answer"], said["reasoning"]) == ("Hi, message", "Hm")


def k3_call(key: str, value: str) -> str:
    argument = f'<|open|>argument key="{key}" type="string"<|sep|>{value}<|close|>argument<|sep|>'
    call = f'<|open|>call tool="f" index="1"<|sep|>{argument}<|close|>call<|sep|>'
    return f"<|open|>tools<|sep|>{call}<|close|>tools<|sep|>"


def test_kimi_k3s_tags_are_part_of_an_argument() -> None:
    value = "write <|close|>message<|sep|> now"
    start, end = "Well. <|clo \n<|close|>response<|sep|>\n", "\n<|close|>message<|sep|>\n"
    said = read(BY_NAME["kimi-k3"], start + k3_call("s", value) + end, markers=KIMI_K3)
    assert said == {"answer": "Well. <|clo", "reasoning": "", "calls": [["f", {"s": value}, True]]}


def test_what_may_begin_a_tag_of_kimi_k3_is_told_before_a_call() -> None:
    said = run(
        OutputParser(BY_NAME["kimi-k3"], KIMI_K3, TOOLS), ["Well <|clo", k3_call("s", "x"), "<|cl"]
    )
    assert "".join(piece.text for piece in said[:2] if isinstance(piece, Piece)) == "Well <|clo"
    assert said[-1] == Piece("answer", "<|cl")


def test_calls_line_by_line_are_several() -> None:
    one, two = (json.dumps({"name": name, "arguments": {"o": name}}) for name in "fg")
    said = read(BY_NAME["minimax-json"], f"<tool_calls>\n{one}\n{two}\n</tool_calls> bye")
    assert said["calls"] == [["f", {"o": "f"}, True], ["g", {"o": "g"}, True]]
    assert said["answer"] == "bye"


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (
            "{%- set HYTK = ':opensource' %}{{- '<arg_key{}>'.format(HYTK) }}",
            "hunyuan-tags",
        ),
        ("<|START_ACTION|>[{}]<|END_ACTION|> <tool_call>", "cohere"),
        (
            "{%- set dsml_token = '｜DSML｜' -%}{{- '<' + dsml_token + 'tool_calls>' -}}",
            "dsml-tools",
        ),
        ("'｜DSML｜' 'function_calls>' 'tool_calls>'", "dsml"),
        ("']<]minimax[>[' ~ '<tool_call>' '<invoke name='", "minimax-tags"),
        ("{{- '<|open|>' + tag -}} {{- open_tag('tools') -}}", "kimi-k3"),
        ('<tool_calls>\\n{"name": <tool-name>, "arguments"', "minimax-json"),
        ('<tool_calls>[{"name"', "hunyuan"),
    ],
)
def test_a_template_says_which_format_it_is(template, format, vocabularies) -> None:
    assert find_tool_format(template, vocabularies[""]) is BY_NAME.get(format)


def test_several_calls_in_one_list_are_several() -> None:
    one, two = ({"name": name, "arguments": {"o": name}} for name in "fg")
    said = read(BY_NAME["hunyuan"], f"<tool_calls>{json.dumps([one, two])}</tool_calls> bye")
    assert said["calls"] == [["f", {"o": "f"}, True], ["g", {"o": "g"}, True]]
    assert said["answer"] == "bye"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ('{"s": "a\nb"}', {"s": "a\nb"}),
        (r'{"s": "\d+ \'x\' \u12"}', {"s": r"\d+ 'x' \u12"}),
        (r'{"s": "\ud83d\ude00 \ud83d \ude00"}', {"s": "😀 � �"}),
        ('{ "a" : [ 1 , -2.5e3, {} , [ ] , null ] , "é" : "😀" }',
         {"a": [1, -2500.0, {}, [], None], "é": "😀"}),
        ("{}", {}),
        ("null", {}),
    ],
)  # fmt: skip
def test_arguments_are_copied_and_mended(arguments: str, meant: dict[str, Any]) -> None:
    output = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    assert read(BY_NAME["hermes"], output)["calls"] == [["f", meant, True]]


@pytest.mark.parametrize(
    "arguments",
    ['{"a": foo}', '{"a": 01}', '{"a": 1,}', "{'a': 1}", '{"a" 1}', "[1]", "5", '"x"', "[" * 200],
)
def test_nonsense_is_told_as_text(arguments: str) -> None:
    output = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call> so'
    said = read(BY_NAME["hermes"], output)
    assert said["answer"] == output
    assert all(not whole for _, _, whole in said["calls"])


def test_depth_that_would_break_a_reader_is_nonsense() -> None:
    output = '<tool_call>{"name": "f", "arguments": {"a": ' + "[" * 5000 + "}"
    assert read(BY_NAME["hermes"], output)["answer"] == output


@pytest.mark.parametrize(
    ("cut", "arguments"),
    [
        ('{"s": "ab', {"s": "ab"}),
        ('{"s": "ab\\', {"s": "ab"}),
        ('{"s": "ab\\u00', {"s": "ab"}),
        ('{"n": 12', {}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": [1, {"b": tr', {"a": [1, {}]}),
        ('{"a": [1, {"b": true', {"a": [1, {"b": True}]}),
        ("{", {}),
    ],
)
def test_what_is_cut_off_is_closed(cut: str, arguments: dict[str, Any]) -> None:
    said = read(BY_NAME["hermes"], '<tool_call>{"name": "f", "arguments": ' + cut)
    kept = {key: str(value).rstrip("\\u0") if key == "s" else value
            for key, value in said["calls"][0][1].items()}  # fmt: skip
    assert (kept, said["calls"][0][2], said["answer"]) == (arguments, False, "")


def test_what_is_cut_off_before_it_was_a_call_is_text() -> None:
    output = 'Hm <tool_call>{"name": "f", "argum'
    assert read(BY_NAME["hermes"], output) == {"answer": output, "reasoning": "", "calls": []}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "integer"}, "5", 5),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "5", "5"),
        ({"type": "boolean"}, "True", True),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"const": 1}, "1", 1),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, "[1]", "[1]"),
        ({"$ref": "#/$defs/t"}, "5", "5"),
        ({"$ref": "#/$defs/loop"}, "5", 5),
        ({"$ref": "#/$defs/many"}, "5", 5),  # at once, though it leads to itself in many ways
        ({"enum": 1}, "5", 5),
        ({"enum": {"a": 1}, "anyOf": 1, "type": 1}, "5", 5),
        ({"anyOf": [1, None]}, "5", 5),
        ({"type": "object"}, "{broken", "{broken"),
        ({}, '"quoted"', "quoted"),
        ({}, "NaN", "NaN"),
        ({"type": "string"}, "\n a\n\n", "\n a\n\n"),
        ({"type": "string"}, "", ""),
    ],
)
def test_bare_values_are_of_the_schemas_types(schema: Any, text: str, value: Any) -> None:
    tools = tools_of("f", x=schema)
    defs: dict[str, Any] = {"t": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}
    defs["many"] = {"anyOf": [{"$ref": "#/$defs/many"}] * 40}
    tools[0]["function"]["parameters"]["$defs"] = defs
    body = f"<parameter=x>\n{text}\n</parameter>\n</function>\n</tool_call>"
    said = read(BY_NAME["qwen-coder"], f"<tool_call>\n<function=f>\n{body}", tools=tools)
    assert said["calls"] == [["f", {"x": value}, True]]


def test_text_is_streamed_as_it_comes() -> None:
    parser = OutputParser(BY_NAME["qwen-coder"], None, TOOLS)
    assert parser.add("<function=f>\n<parameter=s>\n") == [
        CallBegin(0, "f"), CallArguments(0, '{"s": "')
    ]  # fmt: skip
    assert parser.add("ab\n") == [CallArguments(0, "ab")]
    assert parser.add("c\n</par") == [CallArguments(0, "\\nc")]
    assert parser.add("ameter>") == [CallArguments(0, '"')]
    assert parser.add("\n</function>") == [CallArguments(0, "}"), CallEnd(0)]


def test_a_call_ends_the_reasoning_of_models_that_forget_to() -> None:
    call = "<tool_call><function=f></function></tool_call>"
    said = read(BY_NAME["qwen-coder"], "hm\n" + call, markers=THINK, inside=True)
    assert said == {"reasoning": "hm", "answer": "", "calls": [["f", {}, True]]}
    said = read(BY_NAME["hermes"], "a <tool_call> b</think>c", markers=THINK, inside=True)
    assert said == {"reasoning": "a <tool_call> b", "answer": "c", "calls": []}


def test_without_tools_there_are_no_calls() -> None:
    output = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read(BY_NAME["hermes"], output, tools=None)["answer"] == output
    call = "<|channel|>commentary to=functions.f<|message|>{}"
    assert read(formats.HARMONY_CALLS, call, markers=HARMONY, tools=None)["answer"] == call


def test_harmony_without_headers_is_an_answer() -> None:
    for output in ("Hello.", "<|channel|>finale<|message|>x", "<|start|>user<|message|>x"):
        said = read(formats.HARMONY_CALLS, output, markers=HARMONY)
        assert said == {"reasoning": "", "answer": output, "calls": []}


def test_hidden_tokens_of_the_format_reach_the_parser(tmp_path: Path) -> None:
    names = ["<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "<pad>"]
    path = write_bytes_vocabulary(
        tmp_path / "v.gguf", specials=[(name, TokenType.CONTROL) for name in names]
    )
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(path))
    parser = OutputParser(formats.MISTRAL, THINK, TOOLS)
    stream = OutputStream(tokenizer, parser, stop=["STOP"])
    output = '<think>hm<pad></think>Hi<pad>[TOOL_CALLS]f[ARGS]{"s": "é"}STOP[TOOL_CALLS]x'
    ids = tokenizer.encode(output, add_special=False)
    said = summary([event for id in ids for event in stream.add(id)] + stream.finish())
    assert said == {"reasoning": "hm", "answer": "Hi", "calls": [["f", {"s": "é"}, True]]}
    assert stream.stopped == "STOP"


OUTPUTS = st.sampled_from([(name, case) for name, case in CASES if case["calls"]])


def as_given(name: str) -> tuple[ToolFormat, Markers | None]:
    known = {
        "GLM": "glm", "Kimi": "kimi", "moonshotai": "kimi", "LFM2": "lfm2", "MiniMax": "minimax",
        "Qwen3": "qwen-coder", "google": "gemma", "openai": "harmony",
        "deepseek-ai-DeepSeek-V3.1": "deepseek", "deepseek-ai-DeepSeek-V3.2": "dsml",
        "inclusionai": "ling", "mistralai-Mistral-Nemo": "mistral-list", "ibm": "hermes",
    }  # fmt: skip
    found = OTHERS.get(name, (next((f for k, f in known.items() if name.startswith(k)), ""), None))
    return BY_NAME[found[0]], HARMONY if found[0] == "harmony" else None


@settings(max_examples=150, deadline=None)
@given(OUTPUTS, st.data())
def test_anything_is_told_and_cuts_change_nothing(case: Any, data: st.DataObject) -> None:
    format, markers = as_given(case[0])
    output = case[1]["output"]
    for _ in range(data.draw(st.integers(0, 3))):  # damage
        at = data.draw(st.integers(0, len(output)))
        put = data.draw(st.sampled_from(["", "<", '"', "}", "\\", "é", "<tool_call>", "[", " x"]))
        output = output[:at] + put + output[at + data.draw(st.integers(0, 3)) :]
    output = output[: data.draw(st.integers(0, len(output)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=8)))
    pieces = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    tools = case[1]["tools"]
    whole = summary(run(OutputParser(format, markers, tools), [output]))
    assert summary(run(OutputParser(format, markers, tools), pieces)) == whole
    if not whole["calls"] and markers is None:
        assert "".join(whole["answer"].split()) == "".join(output.split())


@pytest.mark.parametrize("system", [True, False])
def test_tools_are_told_of_without_any_message(system: bool) -> None:
    (told,) = with_tools([], [{}], system=system)
    assert told["role"] == ("system" if system else "user")
    assert "<tools>\n{}\n</tools>" in told["content"]
