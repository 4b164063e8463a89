"""The ways in which models write tool calls, and which a model has."""

from dataclasses import dataclass, replace
from typing import Protocol

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.json_calls import JsonFormat
from moestream.chat.tool_calls.named_calls import NamedFormat
from moestream.chat.tool_calls.nested_calls import NestedFormat
from moestream.chat.tool_calls.pythonic_calls import GemmaFormat, PythonFormat
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.tagged_calls import TaggedFormat
from moestream.chat.tool_calls.text import Reading, Text
from moestream.tokenizer import Tokenizer


class MarkedFormat(Protocol):
    """A way to write calls between markers, in the answer."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def specials(self) -> tuple[str, ...]:
        """Names of special tokens that are part of the text, though they may be hidden."""

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call may begin with; none begins with another."""

    @property
    def ends_reasoning(self) -> bool:
        """Whether calls may come with the reasoning still open."""

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows an opener, and tell its calls.

        Raises:
            Malformed: it is no call.
        """


@dataclass(frozen=True, slots=True)
class HarmonyFormat:
    """gpt-oss: a call is a message with a recipient in its header."""

    name: str = "harmony"
    specials: tuple[str, ...] = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>")


ToolFormat = MarkedFormat | HarmonyFormat
HARMONY_CALLS = HarmonyFormat()
HERMES = JsonFormat("hermes", "<tool_call>", "</tool_call>")  # Qwen, Granite 4, ERNIE, Ling 2
GRANITE = JsonFormat("granite", "<|tool_call|>", is_list=True)  # Granite 3
HUNYUAN = JsonFormat("hunyuan", "<tool_calls>", "</tool_calls>", is_list=True)
MINIMAX_JSON = JsonFormat("minimax-json", "<tool_calls>", "</tool_calls>", is_lines=True)  # M1
COHERE = JsonFormat(
    "cohere",
    "<|START_ACTION|>",
    "<|END_ACTION|>",
    is_list=True,
    name_key="tool_name",
    arguments_key="parameters",
    id_key="tool_call_id",
)
MISTRAL_LIST = JsonFormat("mistral-list", "[TOOL_CALLS]", is_list=True)
MISTRAL = NamedFormat("mistral", call_open="[TOOL_CALLS]", name_close="[ARGS]", id_open="[CALL_ID]")
KIMI = NamedFormat(
    "kimi",
    open="<|tool_calls_section_begin|>",
    close="<|tool_calls_section_end|>",
    call_open="<|tool_call_begin|>",
    call_close="<|tool_call_end|>",
    name_close="<|tool_call_argument_begin|>",
    before="functions.",
    numbered=True,
    ends_reasoning=True,
)
DEEPSEEK = NamedFormat(  # V3.1
    "deepseek",
    open="<｜tool▁calls▁begin｜>",
    close="<｜tool▁calls▁end｜>",
    call_open="<｜tool▁call▁begin｜>",
    call_close="<｜tool▁call▁end｜>",
    name_close="<｜tool▁sep｜>",
)
DEEPSEEK_FENCED = replace(  # V3 and R1
    DEEPSEEK,
    name="deepseek-fenced",
    before="function<｜tool▁sep｜>",
    tokens=("<｜tool▁sep｜>",),
    name_close="\n```json\n",
    arguments_close="```",
)
QWEN_CODER = TaggedFormat(  # Qwen3-Coder, Qwen3.5
    "qwen-coder",
    open="<tool_call>",
    close="</tool_call>",
    call_open="<function=",
    name_close=">",
    key_open="<parameter=",
    key_closes=((">", None),),
    value_close="</parameter>",
    call_close="</function>",
    line_breaks=True,
    ends_reasoning=True,
)
MINIMAX = TaggedFormat(
    "minimax",
    open="<minimax:tool_call>",
    close="</minimax:tool_call>",
    call_open='<invoke name="',
    name_close='">',
    key_open='<parameter name="',
    key_closes=(('">', None),),
    value_close="</parameter>",
    call_close="</invoke>",
)
DSML = TaggedFormat(  # DeepSeek V3.2
    "dsml",
    open="<｜DSML｜function_calls>",
    close="</｜DSML｜function_calls>",
    call_open='<｜DSML｜invoke name="',
    name_close='">',
    key_open='<｜DSML｜parameter name="',
    key_closes=(('" string="true">', True), ('" string="false">', False)),
    value_close="</｜DSML｜parameter>",
    call_close="</｜DSML｜invoke>",
    tokens=("｜DSML｜",),
)
DSML_TOOLS = replace(  # DeepSeek V4
    DSML, name="dsml-tools", open="<｜DSML｜tool_calls>", close="</｜DSML｜tool_calls>"
)
GLM = TaggedFormat(
    "glm",
    open="<tool_call>",
    key_open="<arg_key>",
    key_closes=(("</arg_key>", None),),
    value_open="<arg_value>",
    value_close="</arg_value>",
    call_close="</tool_call>",
)
LING = replace(GLM, name="ling", ends_reasoning=True)  # Ling 3
HUNYUAN_TAGS = TaggedFormat(  # Hunyuan 3
    "hunyuan-tags",
    open="<tool_calls:opensource>",
    close="</tool_calls:opensource>",
    call_open="<tool_call:opensource>",
    name_close="<tool_sep:opensource>",
    key_open="<arg_key:opensource>",
    key_closes=(("</arg_key:opensource>", None),),
    value_open="<arg_value:opensource>",
    value_close="</arg_value:opensource>",
    call_close="</tool_call:opensource>",
)
KIMI_K3 = TaggedFormat(
    "kimi-k3",
    open="<|open|>tools<|sep|>",
    close="<|close|>tools<|sep|>",
    call_open='<|open|>call tool="',
    name_close='"',
    name_end="<|sep|>",
    key_open='<|open|>argument key="',
    key_closes=(
        ('" type="string"<|sep|>', True),
        *(
            (f'" type="{type}"<|sep|>', False)
            for type in ("number", "integer", "boolean", "null", "object", "array")
        ),
    ),
    key_escapes=(("&", "&amp;"), ('"', "&quot;")),
    value_close="<|close|>argument<|sep|>",
    call_close="<|close|>call<|sep|>",
    tokens=("<|open|>", "<|close|>", "<|sep|>"),
)
MINIMAX_TAGS = NestedFormat("minimax-tags", "]<]minimax[>[", "tool_call")  # M3
LFM2 = PythonFormat("lfm2", "<|tool_call_start|>", "<|tool_call_end|>")
GEMMA_CALLS = GemmaFormat("gemma", "<|tool_call>", "<tool_call|>")

_BY_TEMPLATE: tuple[tuple[tuple[str, ...], MarkedFormat], ...] = (
    ((KIMI.open,), KIMI),
    (("'<|open|>' + tag", "open_tag('tools')"), KIMI_K3),
    ((MINIMAX_TAGS.mark, "<invoke name="), MINIMAX_TAGS),
    (("DSML", "function_calls"), DSML),
    (("DSML", "tool_calls>"), DSML_TOOLS),
    (("<｜tool▁calls▁begin｜>", "```json"), DEEPSEEK_FENCED),
    (("<｜tool▁calls▁begin｜>",), DEEPSEEK),
    (("<|tool_list_start|>",), LFM2),
    ((LFM2.open,), LFM2),
    (("<|tool_call>call:",), GEMMA_CALLS),
    ((MINIMAX.open,), MINIMAX),
    (("[TOOL_CALLS]", "[ARGS]"), MISTRAL),
    (("[TOOL_CALLS]",), MISTRAL_LIST),
    (("<arg_key>", "<role>"), LING),
    (("<arg_key>",), GLM),
    (("<function=", "<parameter="), QWEN_CODER),
    (("<arg_key{}>", "':opensource'"), HUNYUAN_TAGS),
    ((COHERE.open,), COHERE),
    ((GRANITE.open,), GRANITE),
    ((MINIMAX_JSON.open, '{"name": <tool-name>'), MINIMAX_JSON),
    ((HUNYUAN.open,), HUNYUAN),
    ((HERMES.open,), HERMES),
)
"""What a template says, and the format that it means: the first of which it says all."""


def find_tool_format(template: str, tokenizer: Tokenizer) -> ToolFormat | None:
    """Return how a model writes tool calls, by its chat template and vocabulary, if we know."""
    if "<|message|>" in template and (
        tokenizer.token_id("<|channel|>") is not None or "to=functions." in template
    ):
        return HARMONY_CALLS
    if tokenizer.token_id(LFM2.open) is not None:
        return LFM2  # of which some templates say nothing
    said = (format for words, format in _BY_TEMPLATE if all(word in template for word in words))
    return next(said, None)
