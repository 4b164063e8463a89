"""How each family of models cuts text into words before byte-pair encoding.

Owns the table from the names in ``tokenizer.ggml.pre`` to splitting rules. Knows nothing of
vocabularies and merges: those are ``vocabulary``'s and ``tokenizer``'s.

The patterns are those of the models' own ``tokenizer.json`` or tokeniser source. llama.cpp
rewrites some for its own engine, which tells no upper from lower case outside ASCII and cannot
take a set from another: where its words differ from the model's own, the model's own are right.
Text is never normalised: the files do not say that it should be, and llama.cpp does not.

Source: the patterns quoted in llama.cpp, src/llama-vocab.cpp, beside its names for them.
"""

from dataclasses import dataclass
from functools import cache

from tokenizers import Regex
from tokenizers import pre_tokenizers as pre


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The rules that one or more names stand for.

    ``patterns`` are applied one after the other, each to the pieces that the last one left: what
    a pattern matches becomes a piece, and so does what lies between. ``byte_level`` vocabularies
    spell bytes as GPT-2 does; the others spell a space ``▁`` and fall back to ``<0x0A>``.
    ``ignore_merges``: a word that is a token is that token, whatever the merges make of it.
    ``add_bos``: whether the text begins with BOS where the file does not say.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    byte_level: bool = True
    ignore_merges: bool = False
    add_bos: bool = False

    def build(self) -> pre.PreTokenizer:
        """Compile the rules."""
        steps: list[pre.PreTokenizer] = [pre.Split(Regex(p), "isolated") for p in self.patterns]
        if self.byte_level:
            steps.append(pre.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre.Sequence(steps)


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_NEWLINES = r"\s*[\r\n]+"
_DIGIT = r"\p{N}"
_UP_TO_3_DIGITS = r"\p{N}{1,3}"

_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_QWEN2 = f"{_CONTRACTIONS}|{_WORD}|{_DIGIT}|{_SIGNS}|{_NEWLINES}|{_SPACES}"
# That of OpenAI's cl100k.
_LLAMA3 = f"{_CONTRACTIONS}|{_WORD}|{_UP_TO_3_DIGITS}|{_SIGNS}|{_NEWLINES}|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{_DIGIT}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_NEWLINES}|{_SPACES}"
)

_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _cased(upper: str, lower: str, suffix: str) -> str:
    """Words that begin anew where a capital follows a small letter."""
    return f"{_LEAD}{upper}*{lower}+{suffix}|{_LEAD}{upper}+{lower}*{suffix}"


_TEKKEN = f"{_cased(_UPPER, _LOWER, '')}|{_DIGIT}|{_SIGNS_OR_SLASH}|{_NEWLINES}|{_SPACES}"
_CASED_WORD = _cased(_UPPER, _LOWER, f"{_CONTRACTIONS}?")
# That of OpenAI's o200k.
_GPT4O = f"{_CASED_WORD}|{_UP_TO_3_DIGITS}|{_SIGNS_OR_SLASH}|{_NEWLINES}|{_SPACES}"
_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI_K2 = (
    r"[\p{Han}]+|"
    + _cased(_UPPER.replace("]", _NOT_HAN), _LOWER.replace("]", _NOT_HAN), f"{_CONTRACTIONS}?")
    + f"|{_UP_TO_3_DIGITS}|{_SIGNS}|{_NEWLINES}|{_SPACES}"
)
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    rf"|\s*[\r\n]|{_SPACES}"
)
_SEED_CODER = rf"{_CONTRACTIONS}|{_WORD}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_NEWLINES}|{_SPACES}"
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_LEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}"
)
_MINICPM5 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_SIGNS}|{_NEWLINES}|{_SPACES}"
_JAIS2 = f"{_CONTRACTIONS}|{_WORD}|{_UP_TO_3_DIGITS}|{_SIGNS}|{_NEWLINES}|" + "|".join(
    [rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)] + [r"\s{1,2}(?!\S)", r"\s{1}"]
)

_ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_MARKED_WORD = rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_HAN_AND_KANA = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
_DEEPSEEK_V3 = (
    _UP_TO_3_DIGITS,
    _HAN_AND_KANA,
    rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_NEWLINES}|{_SPACES}",
)
_SPARK = (
    _UP_TO_3_DIGITS,
    _HAN_AND_KANA,
    rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}",
    _DIGIT,
)
# From U+0800 on: what DeepSeek's authors took for Chinese, Japanese and Korean.
_CJK = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT)
# The alphabets with upper and lower case, listed.
_DEEPSEEK_LLM_LETTER = (
    r"["
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}"
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}"
    r"\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}"
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}"
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}"
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}"
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}"
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}"
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}"
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}"
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}"
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}"
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}"
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}"
    r"\x{1E900}-\x{1E943}"
    r"]"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?{_DEEPSEEK_LLM_LETTER}+",
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
    r"\s+$",
    _CJK,
    _DIGIT,
)
_YOUTU = (
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
    f"{_CASED_WORD}|{_DIGIT}|{_SIGNS_OR_SLASH}|{_NEWLINES}|{_SPACES}",
)
# Groups of three digits, counted from the right.
_DIGITS_BY_3 = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_AFMOE = (
    _DIGITS_BY_3,
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
    rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_NEWLINES}|{_SPACES}",
)
_LINES = r"[^\n]+|[\n]+"

_TABLE = (
    PreTokenizer(
        (
            "gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais",
            "trillion", "granite-docling",
        ),
        (_GPT2,),
    ),
    PreTokenizer(
        (
            "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
            "mellum2",
        ),
        (_DIGIT, _GPT2),
    ),
    PreTokenizer(
        (
            "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
            "lfm2",
        ),
        (_LLAMA3,),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(("dbrx", "smaug-bpe", "chatglm-bpe"), (_LLAMA3,)),
    PreTokenizer(("glm4", "glm5"), (_LLAMA3,), ignore_merges=True),
    PreTokenizer(
        (
            "qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open",
            "grok-2",
        ),
        (_QWEN2,),
    ),
    PreTokenizer(("qwen35",), (_QWEN35,)),
    PreTokenizer(("laguna",), (_LINES, _QWEN2)),
    PreTokenizer(("tekken",), (_TEKKEN,), ignore_merges=True, add_bos=True),
    PreTokenizer(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    PreTokenizer(("tiny_aya", "cohere2moe"), (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)),
    PreTokenizer(("kimi-k2",), (_KIMI_K2,)),
    PreTokenizer(("deepseek-llm",), _DEEPSEEK_LLM),
    PreTokenizer(("deepseek-coder",), _DEEPSEEK_CODER),
    PreTokenizer(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK_V3),
    PreTokenizer(("spark2_5",), _SPARK),
    PreTokenizer(("youtu",), _YOUTU, ignore_merges=True),
    PreTokenizer(("afmoe",), _AFMOE),
    PreTokenizer(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    PreTokenizer(("seed-coder",), (_SEED_CODER,)),
    PreTokenizer(("exaone-moe",), (_EXAONE_MOE,)),
    PreTokenizer(("minicpm5",), (_UP_TO_3_DIGITS, _MINICPM5), ignore_merges=True),
    PreTokenizer(("jais-2",), (_JAIS2,)),
    PreTokenizer(("falcon",), (r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    PreTokenizer(
        ("default",), (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
    ),
    PreTokenizer(("gemma4",), (_LINES,), byte_level=False, add_bos=True),
    PreTokenizer(("sarvam-moe",), (_LINES,), byte_level=False),
)  # fmt: skip


@cache
def pre_tokenizers() -> dict[str, PreTokenizer]:
    """Return the rules by name."""
    return {name: rules for rules in _TABLE for name in rules.names}
