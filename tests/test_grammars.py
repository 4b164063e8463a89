"""What is written under a constraint fits it, whatever the model would rather say."""

import json
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import jsonschema
import numpy as np
import pytest
from gguf.constants import TokenType
from vocabulary_files import write_bytes_vocabulary

from moestream.chat.output import OutputParser, OutputStream
from moestream.chat.reasoning import HARMONY, MARKERS, Markers, Piece
from moestream.chat.tool_calls import CallArguments, CallBegin, CallEnd, ToolFormat, formats
from moestream.demo import demo_path
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Constraint, Sampler
from moestream.errors import RequestError
from moestream.gguf import GGUFFile
from moestream.grammars import Grammars
from moestream.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
THINK = MARKERS[0]
FORMATS = [
    value
    for value in vars(formats).values()
    if hasattr(value, "specials") and not isinstance(value, type)
]
CONTROL, USER = TokenType.CONTROL, TokenType.USER_DEFINED
VISIBLE = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>", "<tool_call>"]
HIDDEN = [
    *("<|endoftext|>", "<|im_end|>", "<|return|>", "<|call|>", "</think>", "</tool_call>", "<pad>"),
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|tool_call>", "<tool_call|>", '<|"|>'),
    *formats.KIMI.specials,
    *(name for name in formats.DEEPSEEK.specials if name != formats.KIMI.call_open),
    *("<|tool_call_start|>", "｜DSML｜", *formats.KIMI_K3.tokens),
    *formats.HUNYUAN_TAGS.specials,
    *formats.COHERE.specials,
    formats.MINIMAX_TAGS.mark,
]
MERGES = ["Ċ Ċ", "Ġ Ġ", '" :', "} }", "> {", "t r", "tr ue", "< /", "a b", "Ã ©", '" ,']


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    specials = [(name, USER) for name in VISIBLE] + [(name, CONTROL) for name in HIDDEN]
    path = tmp_path_factory.mktemp("vocabulary") / "v.gguf"
    write_bytes_vocabulary(path, specials=specials, merges=[m for m in MERGES if "tr " not in m])
    return Tokenizer.from_gguf(GGUFFile.open(path))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, tokenizer.end_ids)


def write(
    constraint: Constraint, tokenizer: Tokenizer, seed: int, wish: Sequence[str] = ()
) -> list[int]:
    """Draw tokens that are allowed until the end; now and then what is wished for is tried."""
    chance, ids = random.Random(seed), []
    favourites = [id for name in '"}]>,0' for id in tokenizer.encode(name, add_special=False)]
    favourites += tokenizer.end_ids
    pending: list[int] = []
    for step in range(5000):
        allowed = constraint.allowed()
        assert allowed is not None
        assert allowed.shape == (tokenizer.vocab_size,)
        if not pending and wish and chance.random() < 0.1:
            pending = tokenizer.encode(chance.choice(wish), add_special=False)
        choices = np.flatnonzero(allowed)
        likely = [id for id in favourites if allowed[id]]
        if pending and allowed[pending[0]]:
            token = pending.pop(0)
        elif likely and chance.random() < min(0.3 + step / 400, 0.98):
            token, pending = chance.choice(likely), []
        else:
            token, pending = int(chance.choice(choices)), []
        constraint.accept(token)
        if token in tokenizer.end_ids:
            assert set(np.flatnonzero(constraint.allowed())) == tokenizer.end_ids
            return ids
        ids.append(token)
    raise AssertionError(f"it never ends: {tokenizer.decode(ids)[-200:]!r}")


def fits(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text may be written, and may end there."""
    for id in tokenizer.encode(text, add_special=False, parse_special=False):
        if not constraint.allowed()[id]:
            return False
        constraint.accept(id)
    ends = {bool(constraint.allowed()[id]) for id in tokenizer.end_ids}
    assert len(ends) == 1
    return ends.pop()


SCHEMAS: list[Any] = [
    {"type": "object"},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {"enum": ["a", 1, None, {"x": [True]}, 'é"\\']},
    {"const": {"k": "v"}},
    {"type": "integer", "minimum": -5, "exclusiveMaximum": 12},
    {"type": "number", "minimum": 0.5, "maximum": 1.5},
    {"type": "number", "multipleOf": 5, "minimum": 0, "maximum": 99},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]{2,3}-[0-9]+$"},
    {"type": "string", "pattern": "b"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "integer"}}]},
    {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 9},
            "größe": {"type": "integer", "minimum": 0, "maximum": 200},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
            "sub": {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}},
                "required": ["ok"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "sub"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
                },
                "required": ["v", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    },
    {
        "type": "object",
        "patternProperties": {"^x": {"type": "integer"}},
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
    {"type": ["string", "null"], "maxLength": 3},
    True,
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_what_is_written_is_json_of_the_schema(
    grammars: Grammars, tokenizer: Tokenizer, schema: Any
) -> None:
    for seed in range(4):
        ids = write(grammars.json_schema(schema), tokenizer, seed)
        value = json.loads(tokenizer.decode(ids, skip_special=True))
        jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "^the JSON schema .*: 'uniqueItems' is not supp"),
        ({"type": "nothing"}, "there is no type 'nothing'$"),
        ({"$ref": "https://example.com/schema"}, "example.com/schema' is not in the schema"),
        ({"$ref": "#/$defs/x"}, "'#/[$]defs/x' leads nowhere$"),
        ({"type": "string", "pattern": r"\bx"}, "word boundaries are not supported$"),
        ({"type": "string", "pattern": "$a"}, "ends of a pattern$"),
        ({"type": "string", "pattern": "[a"}, r"of a pattern, a \[ has no \]$"),
        ({"type": "string", "pattern": "(a"}, "enforced: unclosed group$"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, r"nothing fits it: minimum \(2\)"),
        ({"type": "string", "pattern": "(?=a)b"}, "look"),
        ({"if": {"type": "string"}, "then": {"minLength": 1}}, "if"),
        (
            {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
            "one of oneOf may fit: use anyOf$",
        ),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "propertyNames": {"maxLength": 1}}, "propertyNames"),
        ({"contains": {"type": "integer"}}, "contains"),
        ({"not": {}, "x-guidance": {"lenient": True}}, "not"),
        (False, "not"),
    ],
)
def test_what_cannot_be_enforced_is_refused(grammars: Grammars, schema: Any, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        grammars.json_schema(schema, param="response_format")
    assert caught.value.param == "response_format"


def test_a_regular_expression_is_matched_as_a_whole(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    for pattern, yes, no in (
        (r"[a-c]+/\d", ["abc/1"], ["abc/", "xabc/1", "abc/12"]),
        (r"^é|b$", ["é", "b"], ["éb", "$"]),
        (r"a\$", ["a$"], ["a"]),
        (r"^a\\$", ["a\\"], ["a\\$"]),
        (r"\d\w\s", ["1_\ufeff", "1a\u2003"], ["٣a ", "1é ", "1a\x85"]),
        ("a\nstart: b", ["a\nstart: b"], ["b"]),
    ):
        assert all(fits(grammars.regex(pattern), tokenizer, text) for text in yes)
        assert not any(fits(grammars.regex(pattern), tokenizer, text) for text in no)
    for pattern in ("(?=a)b", "[a", r"(a)\1", "a\\"):
        with pytest.raises(RequestError) as caught:
            grammars.regex(pattern)
        assert caught.value.param == "grammar"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"^\d+-[\w-]$", ["12--", "1-a", "1-_"], ["٣-a", "1-é"]),
        (r"^[^\d\W]\D$", ["a٣", "_é"], ["1a", "éa", "a1"]),
        (r"^\s\S$", ["\xa0a", "\ufeff\x85"], ["\x85a", "a\xa0"]),
        (r"^[+--][a-c-e]$", [",a", "+-", "-e"], ["+d", "*a"]),
        (r"^[[a&&b][\]~~\b]$", ["[]", "&~", "a\b"], ["c]", "a[", "[b"]),
        (r"^a.b[^]\<\/\x41\cA$", ["axb\n</A\x01"], ["a\u2028bx</A\x01", "a\rbx</A\x01"]),
        ("b", ["b", "abc"], ["a"]),
    ],
)
def test_a_pattern_is_one_of_ecma_262(
    grammars: Grammars, tokenizer: Tokenizer, pattern: str, yes: list[str], no: list[str]
) -> None:
    schema = {"properties": {"pattern": {"type": "string", "pattern": pattern}}}
    for text, does in [*((text, True) for text in yes), *((text, False) for text in no)]:
        written = json.dumps({"pattern": text}, ensure_ascii=False)
        constraint = grammars.json_schema({"type": "object", **schema})
        assert fits(constraint, tokenizer, written) is does, text


def test_names_fit_a_pattern_of_ecma_262(grammars: Grammars, tokenizer: Tokenizer) -> None:
    schema = {"patternProperties": {r"^\d$": {"const": 1}}, "additionalProperties": False}
    for name, does in (("7", True), ("٣", False)):
        constraint = grammars.json_schema({"type": "object", **schema})
        assert fits(constraint, tokenizer, f'{{"{name}": 1}}') is does


def test_a_format_that_is_not_known_asks_for_nothing(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    text = {"type": "string", "format": "int99"}
    schema = {
        "type": "object",
        "properties": {"format": {"const": {"format": "int99"}}, "a": {"anyOf": [text]}},
        "$defs": {"const": text},
        "additionalProperties": {"$ref": "#/$defs/const"},
        "required": ["format"],
    }
    whole = '{"format": {"format": "int99"}, "a": "x", "b": "y"}'
    assert fits(grammars.json_schema(schema), tokenizer, whole)
    for format, does in (("uuid", False), ("idn-email", True)):
        constraint = grammars.json_schema({"type": "string", "format": format})
        assert fits(constraint, tokenizer, '"x"') is does
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": text}}}]
    for each in FORMATS:
        constraint = grammars.tool_calls(each, tools)
        assert constraint.allowed().any(), each.name


def test_an_answer_that_cannot_go_on_tells_the_field(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    (token,) = tokenizer.encode("x", add_special=False)
    for constraint, param in (
        (grammars.json_object(), "response_format"),
        (grammars.gbnf('root ::= "a"').another(), "grammar"),
        (grammars.tool_calls(formats.HERMES, TOOLS), "tools"),
    ):
        with pytest.raises(RequestError, match="cannot go on: the token does not fit") as caught:
            constraint.accept(token)
        assert caught.value.param == param


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        ('root ::= "a" | "bc"', ["a", "bc"], ["b", "abc", ""]),
        (r'root ::= [^"\\]+', ["ab", "\n"], ['a"', "a\\", ""]),
        (r'root ::= "\u0041" [\u0030-\u0039] "\x42" [\U0001F600]', ["A5B😀"], ["u41", "a5B😀"]),
        ("root ::= [a-zA-Z0-9_-]+", ["a-_9"], ["é"]),
        (r"root ::= [\]\[]+ [a~~b] [&&]", ["[]~&", "]a&"], ["]x&", "]~~"]),
        ('root ::= "/" [/] "a.b*"', ["//a.b*"], ["//axb"]),
        (
            'root ::= e\ne ::= t ("+" t)*\nt ::= [0-9]+ | "(" e ")"',
            ["1+22", "(1+(2))"],
            ["1+", "()"],
        ),
        ('root ::= ("a" "b"?){2,3}', ["aab", "aba", "aaa"], ["a", "aaaa"]),
        ('root ::= "a"{0} "b"{0,0} x{0}? "c"{ 1 }\nx ::= "d"', ["c"], ["", "ac", "bc", "dc"]),
        ('root ::= "ab"{02 , 3} | ("a"{2}){2}', ["abab", "ababab", "aaaa"], ["abb", "aa"]),
        ('root ::= | "a" | (|"b") "c"', ["", "a", "c", "bc"], ["b"]),
        ("root ::= [a-c-e-] [^^] [^-]", ["a-a", "-a^", "eab"], ["daa", "a^a", "aa-"]),
        (r'root ::= "\t\"\[\-" [\t-\r] [^é]', ['\t"[-\nè'], ['\t"[-\x0eè', '\t"[-\né']),
        ('root ::= "#" [#] # c\r\n', ["##"], ["#"]),
        ('root ::= "a"{2} "b"{1,}', ["aab", "aabbb"], ["ab", "aa", "aaab"]),
        ("root ::= .", ["x", "é", "\n"], ["xy", ""]),
        ('# c\nroot  ::= foo-bar # c\n\nfoo-bar ::= (\n "a" | # d\n "b"\n)', ["a", "b"], ["c"]),
        ('root ::= "a" root? | ""', ["aaa", ""], ["b"]),
        ('root ::= start True\nstart ::= "q"\nTrue ::= "\\""', ['q"'], ["q"]),
        ('root ::= [a-z]* "x" "y"?', ["abxy", "x", "xx"], ["abc", "xyy"]),
        ('root ::= "[" (root ("," root)*)? "]" | [0-9]+', ["[1,[2,[]]]", "[]"], ["[1,]", "["]),
    ],
)
def test_gbnf_is_what_llama_cpp_means_by_it(
    grammars: Grammars, tokenizer: Tokenizer, grammar: str, yes: list[str], no: list[str]
) -> None:
    for text in yes:
        assert fits(grammars.gbnf(grammar), tokenizer, text), text
    for text in no:
        assert not fits(grammars.gbnf(grammar), tokenizer, text), text


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "root"),
        ('rot ::= "a"', "root"),
        ('root ::= "a" nope', "nope"),
        ('root ::= "a', "line 1"),
        ("root ::= [", "line 1"),
        ("root ::= []", "line 1"),
        ("root ::= [z-a]", "goes up"),
        (r'root ::= "\q"', "escape"),
        (r'root ::= "\ud800"', "number"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ('root ::= "a"{2,1}', r"two that go up was expected, not '\{2,1\}'"),
        ('root ::= "a"{1000000}', "6 digits"),
        ('root ::= "a"{,3}', "line 1"),
        ('root ::= "a" x\nx ::= "b"? x | x', "root never ends"),
        ('root ::= "a"?\nx ::= x{1,2} y*\ny ::= x{0,1} "b"', "x never ends"),
        ('root ::= "a"\n  | "b"', "line 2"),
        ('root ::= ("a"', "line 1"),
        ("root ::= <think>", "line 1"),
        ("root ::= " + "(" * 5000, "read"),
    ],
)
def test_what_is_no_gbnf_is_refused(grammars: Grammars, grammar: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        grammars.gbnf(grammar)


WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["c", "f°"]},
        "deep": {
            "type": "object",
            "properties": {"x": {"type": "boolean"}},
            "required": ["x"],
            "additionalProperties": False,
        },
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["city", "unit", "tags"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "ping"}},
]
PARAMETERS = {"get_weather": WEATHER, "ping": {"maxProperties": 0}}


def read_calls(
    tokenizer: Tokenizer, format: ToolFormat, markers: Markers | None, ids: list[int], inside: bool
) -> list[tuple[str, Any]]:
    """The calls that there are, and nothing else."""
    stream = OutputStream(tokenizer, OutputParser(format, markers, TOOLS, inside=inside))
    told = [event for id in ids for event in stream.add(id)] + stream.finish()
    assert all(event.whole for event in told if isinstance(event, CallEnd))
    assert not [event for event in told if isinstance(event, Piece) and event.kind == "answer"]
    texts: dict[int, str] = {}
    for event in told:
        if isinstance(event, CallArguments):
            texts[event.index] = texts.get(event.index, "") + event.text
    begun = [event for event in told if isinstance(event, CallBegin)]
    return [(event.name, json.loads(texts[event.index])) for event in begun]


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize("reasoning", ["none", "open", "perhaps"])
def test_required_calls_are_calls_of_the_schema(
    grammars: Grammars, tokenizer: Tokenizer, format: ToolFormat, reasoning: str
) -> None:
    harmony = isinstance(format, formats.HarmonyFormat)
    markers = None if reasoning == "none" else HARMONY if harmony else THINK
    closer = getattr(format, "value_close", "</x>")
    wish = [closer, closer, closer, *format.specials, "</think>", "<tool_call>", "<|end|>"]
    inside = reasoning == "open"
    for seed, (choice, parallel) in enumerate([(None, True), ("get_weather", False)]):
        constraint = grammars.tool_calls(format, TOOLS, choice, parallel=parallel)
        ids = write(constraint.after_reasoning(markers, inside=inside), tokenizer, seed, wish)
        read_by = HARMONY if harmony else markers
        calls = read_calls(tokenizer, format, read_by, ids, inside)
        assert calls
        for name, arguments in calls:
            jsonschema.validate(arguments, PARAMETERS[name])
        if not parallel:
            assert [name for name, _ in calls] == ["get_weather"]


M3 = formats.MINIMAX_TAGS.mark
ARGUMENTS = '{"city": "Rome", "unit": "c", "tags": ["a"]}'
AS_MODELS_DO = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "hunyuan": f'<tool_calls>[{{"name": "get_weather", "arguments": {ARGUMENTS}}}]</tool_calls>',
    "minimax-json": f'<tool_calls>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n'
    '{"name": "ping", "arguments": {}}\n</tool_calls>',
    "cohere": '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
    f'"parameters": {ARGUMENTS}}}\n]<|END_ACTION|>',
    "hunyuan-tags": "<tool_calls:opensource>\n<tool_call:opensource>get_weather"
    "<tool_sep:opensource>\n<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>"
    "Rome</arg_value:opensource>\n<arg_key:opensource>unit</arg_key:opensource>\n"
    "<arg_value:opensource>c</arg_value:opensource>\n<arg_key:opensource>tags"
    '</arg_key:opensource>\n<arg_value:opensource>["a"]</arg_value:opensource>\n'
    "</tool_call:opensource>\n</tool_calls:opensource>",
    "granite": f'<|tool_call|>[{{"name": "get_weather", "arguments": {ARGUMENTS}}}]',
    "mistral-list": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}}}]',
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}[TOOL_CALLS]ping[ARGS]{{}}",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
    f"<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    f"{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek-fenced": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
    f"get_weather\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping"
    "\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "qwen-coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
    '<parameter=unit>\nc\n</parameter>\n<parameter=tags>\n["a"]\n</parameter>\n</function>\n'
    "</tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome'
    '</parameter>\n<parameter name="unit">c</parameter>\n<parameter name="tags">["a"]</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "minimax-tags": f'{M3}<tool_call>\n{M3}<invoke name="get_weather">{M3}<city>Rome{M3}</city>'
    f"{M3}<unit>c{M3}</unit>{M3}<deep>{M3}<x>true{M3}</x>{M3}</deep>{M3}<tags>{M3}<item>a{M3}</item>"
    f'{M3}</tags>{M3}</invoke>\n{M3}<invoke name="ping">{M3}</invoke>\n{M3}</tool_call>',
    "glm": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>"
    'unit</arg_key>\n<arg_value>c</arg_value>\n<arg_key>tags</arg_key>\n<arg_value>["a"]'
    "</arg_value>\n</tool_call>\n<tool_call>ping\n</tool_call>",
    "lfm2": '<|tool_call_start|>[get_weather(city="Rome", unit="c", tags=["a"]), ping()]'
    "<|tool_call_end|>",
    "gemma": '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,unit:<|"|>c<|"|>,tags:[<|"|>a<|"|>]}'
    "<tool_call|><|tool_call>call:ping{}<tool_call|>",
    "harmony": "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    + ARGUMENTS,
}


M3_CASES = [
    case
    for case in json.loads((DATA / "tool_calls" / "MiniMax-M3.json").read_text())
    if case["calls"] and not case["cut"]
    if not any(M3 in call["arguments"] for call in case["calls"])  # no grammar lets tags be text
]


def test_kimi_k3s_arguments_have_the_keys_and_types_that_it_writes(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    types = {'a"&': "integer", "b": "number", "c": ["integer", "null"], "d": "boolean"}
    fields = {key: {"type": type} for key, type in types.items()}
    tools = [{"name": "f", "parameters": {"properties": fields, "required": list(fields)}}]
    constraint = grammars.tool_calls(formats.KIMI_K3, tools, parallel=False)
    text = tokenizer.decode(write(constraint, tokenizer, 0), skip_special=False)
    written = re.findall('argument key="([^"]*)" type="([a-z]*)"', text)
    names = ["a&quot;&amp;", "b", "c", "d"]
    assert written == list(zip(names, ["number"] * 3 + ["boolean"], strict=True))


@pytest.mark.parametrize("name", AS_MODELS_DO)
def test_calls_can_be_written_as_models_are_used_to(
    grammars: Grammars, tokenizer: Tokenizer, name: str
) -> None:
    format = next(format for format in FORMATS if format.name == name)
    constraint = grammars.tool_calls(format, TOOLS)
    for id in tokenizer.encode(AS_MODELS_DO[name], add_special=False):
        assert constraint.allowed()[id], tokenizer.token_bytes(id)
        constraint.accept(id)
    assert constraint.complete


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "x"}}}, "'a'"),
        ({"anyOf": [{"required": ["a"]}]}, "anyOf"),
        ({"properties": {}, "required": ["b"]}, "'b'"),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, False]}}}, "'a'"),
    ],
)
def test_bare_text_is_not_held_to_more_than_can_be(
    grammars: Grammars, parameters: Any, why: str
) -> None:
    tools = [{"name": "f", "parameters": parameters}]
    with pytest.raises(RequestError, match=why) as caught:
        grammars.tool_calls(formats.GLM, tools)
    assert caught.value.param == "tools"


NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "last": {"$ref": "#/$defs/link"}},
    "required": ["value", "last"],
}
LIST = {"type": "array", "items": {"type": "integer"}}
THING = {"type": "object", "properties": {"x": {"type": "string"}}}


def within(path: list[str], schema: Any) -> Any:
    """Lists in lists: what the last one has is of the schema."""
    for word in path:
        schema = {"type": "array", word: schema}
    return schema


NESTED: dict[str, Any] = {
    "free": {"type": "object", "maxProperties": 2},
    "list": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    "either": {"anyOf": [{"type": "array", "items": {"type": "boolean"}}, {"type": "null"}]},
    "text": {"type": ["string", "null"]},
    "any": {},
    "fixed": {"const": [1, {"a": "b"}]},
    "few": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 2},
    "shape": {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
    "node": {"$ref": "#/$defs/node"},
    "union": {"anyOf": [LIST, {**THING, "required": ["x"]}, {"type": "boolean"}]},
    "open": {"anyOf": [THING, {"type": "string"}]},
}
NESTED_SCHEMA = {
    "type": "object",
    "properties": NESTED,
    "required": list(NESTED),
    "additionalProperties": False,
    "$defs": {
        "node": NODE,
        "link": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]},
        "leaf": {"type": "object", "properties": {"text": {"$ref": "#/$defs/word"}}},
        "word": {"type": "string"},
    },
}


@pytest.mark.parametrize("hidden", [True, False])
def test_tags_within_tags_are_arguments_of_the_schema(
    grammars: Grammars, tokenizer: Tokenizer, tmp_path: Path, hidden: bool
) -> None:
    format, schema = formats.MINIMAX_TAGS, NESTED_SCHEMA
    if not hidden:  # in a vocabulary where the mark is text like any other, also in JSON
        fields = {key: value for key, value in NESTED.items() if key != "free"}
        schema = {**NESTED_SCHEMA, "properties": fields, "required": list(fields)}
        write_bytes_vocabulary(tmp_path / "v.gguf", specials=[("<|im_end|>", CONTROL)], merges=[])
        tokenizer = Tokenizer.from_gguf(GGUFFile.open(tmp_path / "v.gguf"))
        grammars = Grammars(tokenizer, tokenizer.end_ids)
    tools = [{"name": "f", "parameters": schema}]
    for seed in range(6):
        constraint = grammars.tool_calls(format, tools, parallel=False)
        ids = write(constraint, tokenizer, seed, [*format.specials, "</", ">"])
        stream = OutputStream(tokenizer, OutputParser(format, None, tools))
        told = [event for id in ids for event in stream.add(id)] + stream.finish()
        assert [event.whole for event in told if isinstance(event, CallEnd)] == [True]
        text = "".join(event.text for event in told if isinstance(event, CallArguments))
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uses uniqueItems"),
        ({"type": "array", "items": False}, "nothing fits"),
        ({"anyOf": [LIST, {"type": "array"}]}, "'a' be one of several objects or lists"),
        ({"anyOf": [LIST, THING]}, "'a' be a list, or an object that may look like one"),
        ({"type": "object", "properties": {"x>": {"type": "null"}}}, "'x>'"),
        ({"type": "object", "properties": {"x": {}}, "required": ["y"]}, "requires 'y'"),
        ({"type": "object", "properties": {"x": {"minLength": 3}}}, "text 'x'"),
        ({"$ref": "#/$defs/none"}, "'#/[$]defs/none' and says more, or it is not there"),
        ({"$ref": "#/properties/a"}, "refers to itself"),
        ({"type": "object", "properties": {"b": {"$ref": "#/properties/a"}}}, "a' within itself"),
        ({"anyOf": [{"type": "null"}], "maxItems": 3}, "uses maxItems beside anyOf"),
        ({"type": "array", "items": [{"type": "integer"}]}, "which is no schema"),
        ({"anyOf": {"type": "null"}}, "expected a list of schemas"),
        (within(["items"] * 32, {"type": "array"}), "more than 32 deep"),
    ],
)
def test_tags_within_tags_are_not_held_to_more_than_can_be(
    grammars: Grammars, schema: Any, why: str
) -> None:
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}]
    with pytest.raises(RequestError, match=why) as caught:
        grammars.tool_calls(formats.MINIMAX_TAGS, tools)
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("way", "levels"),
    [
        (lambda to: {"type": "object", "properties": {"x": to, "y": to}}, 24),
        (lambda to: {"anyOf": [to] * 12}, 5),
    ],
)
def test_references_that_lead_to_several_each_are_not_written_out_without_end(
    grammars: Grammars, way: Callable[[Any], Any], levels: int
) -> None:
    defs = {f"d{n}": way({"$ref": f"#/$defs/d{n + 1}"}) for n in range(levels)}
    defs[f"d{levels}"] = {"type": "integer"}
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}
    with pytest.raises(RequestError, match="1,000 members by its references") as caught:
        grammars.tool_calls(formats.MINIMAX_TAGS, [{"name": "f", "parameters": parameters}])
    assert caught.value.param == "tools"


def test_tags_that_may_be_anything_or_null_can_be_written(grammars: Grammars) -> None:
    properties = {"a": {"anyOf": [True, {"type": "null"}]}}
    tools = [{"name": "f", "parameters": {"type": "object", "properties": properties}}]
    assert grammars.tool_calls(formats.MINIMAX_TAGS, tools).allowed().any()


@pytest.mark.parametrize("case", M3_CASES, ids=lambda case: case["calls"][0]["name"])
def test_calls_of_minimax_m3_that_llama_cpp_reads_can_be_written(
    grammars: Grammars, tokenizer: Tokenizer, case: dict[str, Any]
) -> None:
    constraint = grammars.tool_calls(formats.MINIMAX_TAGS, case["tools"])
    written = case["output"][case["output"].index(M3) :].rstrip()
    for id in tokenizer.encode(written, add_special=False):
        assert constraint.allowed()[id], tokenizer.token_bytes(id)
        constraint.accept(id)
    assert constraint.complete


def test_gemma_writes_what_a_schema_says_nothing_of(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    fields = {"a": True, "b": {"type": "array", "minItems": None, "items": {"type": "integer"}}}
    tools = [{"name": "f", "parameters": {"type": "object", "properties": fields}}]
    constraint = grammars.tool_calls(formats.GEMMA_CALLS, tools)
    for id in tokenizer.encode("<|tool_call>call:f{a:[1],b:[]}<tool_call|>", add_special=False):
        assert constraint.allowed()[id], tokenizer.token_bytes(id)
        constraint.accept(id)
    fields["a"] = False
    with pytest.raises(RequestError, match="nothing fits"):
        grammars.tool_calls(formats.GEMMA_CALLS, tools)


def test_a_choice_must_be_a_tool(grammars: Grammars) -> None:
    with pytest.raises(RequestError, match="'g'"):
        grammars.tool_calls(formats.HERMES, TOOLS, "g")


def test_answers_of_harmony_get_their_header(grammars: Grammars, tokenizer: Tokenizer) -> None:
    for seed in range(3):
        constraint = grammars.json_schema({"type": "integer"}).after_reasoning(
            HARMONY, inside=False
        )
        ids = write(constraint, tokenizer, seed, ["<|end|>"])
        parser = OutputParser(formats.HARMONY_CALLS, HARMONY, None)
        told = parser.add(tokenizer.decode(ids)) + parser.finish()
        answer = "".join(p.text for p in told if isinstance(p, Piece) and p.kind == "answer")
        assert isinstance(json.loads(answer), int)


def test_reasoning_is_free_but_must_end(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint = grammars.regex("yes").after_reasoning(THINK, inside=True)
    allowed = constraint.allowed()
    assert set(np.flatnonzero(~allowed)) == tokenizer.end_ids
    for id in tokenizer.encode("hm, yes </thi", add_special=False):
        constraint.accept(id)
    constraint.accept(tokenizer.token_id("</think>"))
    for id in tokenizer.encode("\n\n", add_special=False):
        constraint.accept(id)
    assert fits(constraint, tokenizer, "yes")


def test_a_token_cannot_end_the_reasoning_and_say_more(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    close = Markers("<r>", "<r/>")
    constraint = grammars.regex("b").after_reasoning(close, inside=True)
    (more,) = tokenizer.encode(">{", add_special=False)
    assert constraint.allowed()[more]
    for id in tokenizer.encode("<r/", add_special=False):
        constraint.accept(id)
    assert not constraint.allowed()[more]


def test_what_begins_like_reasoning_may_be_either(grammars: Grammars, tokenizer: Tokenizer) -> None:
    markers = Markers("<r>", "</r>")
    for text in ("<b>", "<r>hm</r><b>", " <b>"):
        constraint = grammars.regex("<b>").after_reasoning(markers, inside=False)
        assert fits(constraint, tokenizer, text)
    constraint = grammars.regex("<b>").after_reasoning(markers, inside=False)
    assert not fits(constraint, tokenizer, "<c>")


def test_a_number_ends(grammars: Grammars, tokenizer: Tokenizer) -> None:
    (digit,) = tokenizer.encode("5", add_special=False)

    def digits(constraint: Constraint) -> int:
        for count in range(60):
            if not constraint.allowed()[digit]:
                return count
            constraint.accept(digit)
        return 60

    assert digits(grammars.json_schema({"type": "number"})) == 20
    assert digits(grammars.regex("[0-9]*")) == 60
    for schema, count in (({"type": "string"}, 60), ({"pattern": "^[0-9]{30}$"}, 30)):
        text = grammars.json_schema({"type": "string", **schema})
        text.accept(tokenizer.encode('"', add_special=False)[0])
        assert digits(text) == count


def test_each_constraint_is_fresh(grammars: Grammars, tokenizer: Tokenizer) -> None:
    first, second = grammars.regex("ab"), grammars.regex("ab")
    first.accept(tokenizer.encode("a", add_special=False)[0])
    assert fits(second, tokenizer, "ab")
    with pytest.raises(RequestError):
        first.accept(tokenizer.encode("x", add_special=False)[0])


def test_a_slow_grammar_keeps_no_other_waiting(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars, begun, go_on = Grammars(tokenizer, tokenizer.end_ids), Event(), Event()
    compiled = Grammars._compile

    def slow(self: Grammars, grammar: str, what: str, param: str) -> Any:
        if "slow" in grammar:
            begun.set()
            assert go_on.wait(10)
        return compiled(self, grammar, what, param)

    monkeypatch.setattr(Grammars, "_compile", slow)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(grammars.regex, "slow")
        try:
            assert begun.wait(10)
            assert threads.submit(grammars.regex, "fast").result(timeout=5)
        finally:
            go_on.set()
        assert fits(waiting.result(), tokenizer, "slow")


def test_without_end_tokens_there_are_no_grammars(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="end token"):
        Grammars(tokenizer, ())


@pytest.mark.slow
@pytest.mark.skipif(not demo_path().exists(), reason="the demo model is not built here")
def test_the_demo_writes_what_is_asked_at_temperature_1() -> None:
    """Every output that ends parses and validates; a loop of the model's own may not end."""
    cut_off = []
    with Engine.open(demo_path(), backend="cpu", context_length=1024) as engine:
        tokenizer = Tokenizer.from_gguf(engine.file)
        grammars = Grammars(tokenizer, tokenizer.end_ids)
        for seed, schema in enumerate(SCHEMAS):
            constraint = grammars.json_schema(schema)
            text = say(engine, tokenizer, constraint, "An example in JSON:\n", seed)
            if text is None:
                cut_off.append(json.dumps(schema))
            else:
                format_checker = jsonschema.FormatChecker()
                jsonschema.validate(json.loads(text), schema, format_checker=format_checker)
        for seed, format in enumerate(FORMATS):
            constraint = grammars.tool_calls(format, TOOLS, parallel=False)
            text = say(engine, tokenizer, constraint, "What is the weather in Rome?\n", seed)
            if text is None:
                cut_off.append(format.name)
                continue
            markers = HARMONY if isinstance(format, formats.HarmonyFormat) else None
            ids = tokenizer.encode(text, add_special=False, parse_special=False)
            for name, arguments in read_calls(tokenizer, format, markers, ids, False):
                jsonschema.validate(arguments, PARAMETERS[name])
    assert len(cut_off) <= 10, cut_off


def say(
    engine: Engine, tokenizer: Tokenizer, constraint: Constraint, prompt: str, seed: int
) -> str | None:
    """What is said until the end, the longest 159 tokens; None where there is none within 250."""
    session, sampler = engine.session(), Sampler(SamplingParams(temperature=1.0, seed=seed))
    logits = session.forward(tokenizer.encode(prompt))[-1]
    ids: list[int] = []
    while len(ids) < 250:
        allowed = constraint.allowed()
        token = sampler.sample(np.where(allowed, logits, np.float32(-1e30)), ids)
        assert allowed is not None
        assert allowed[token]
        constraint.accept(token)
        if token in tokenizer.end_ids:
            return tokenizer.decode(ids)
        ids.append(token)
        logits = session.forward([token])[-1]
    return None


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"properties": [1]}, "'properties': [1], expected an object of schemas"),
        ({"properties": {}, "required": 5}, "'required': 5, expected a list of names"),
        ({"properties": {"a": {}}, "required": [1]}, "expected a list of names"),
        ({"anyOf": {}}, "'anyOf': {}, expected a list of schemas"),
    ],
)
def test_words_of_another_kind_are_told(
    grammars: Grammars, format: ToolFormat, wrong: dict[str, Any], told: str
) -> None:
    within = {"type": "object", "properties": {"deep": {"type": "object", **wrong}}}
    for parameters in (
        {"type": "object", **wrong},
        within,
        {"properties": {"x": {"items": wrong}}},
    ):
        with pytest.raises(RequestError) as caught:
            grammars.tool_calls(format, [{"name": "f", "parameters": parameters}])
        assert told in str(caught.value)
        assert caught.value.param == "tools"


def test_members_may_say_by_themselves_that_they_must_be_there(grammars: Grammars) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string", "required": True}}}
    grammars.tool_calls(formats.HERMES, [{"name": "f", "parameters": parameters}])
