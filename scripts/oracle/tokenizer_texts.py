"""Random texts that a tokeniser may trip over: the same ones for the same seed.

Owns what they are made of. Knows nothing of tokenisers.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_WORDS_LINE = (
    "the Hello world don't I'm we've they'LL It'S you'd CamelCaseWord HTTPServer naïve über "
    "Straße ÉCOLE Ñandú città perché l'aquila Œuvre İstanbul ǅungla ΑΘΗΝΑ σοφός Москва "
    "привет Україна שלום مرحبا नमस्ते ภาษาไทย สวัสดี ខ្មែរ မြန်မာ ລາວ 東京 漢字かな交じり カタカナ "
    "中文分词测试 龘靐 한국어 안녕하세요 ⅷ ½ ² ٣٤٥ १२३ x² H₂O 𝒜𝓑𝔠 ﬁn 'ſ 'K ᏣᎳᎩ ꭰꮳ ᾳ Ω"
)
_WORDS = _WORDS_LINE.split()
_SIGNS = [
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    *"«»„“”‘’…—–·¡¿€£¥§©™°±×÷←→∀∑≠、。！？「」（）％～",
]
_SPACES = [" ", "  ", "   ", "    ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f"]
_RARE_SPACES = ["\u00a0", "\u2003", "\u2009", "\u3000", "\u0085", "\u200b", "\u2028", "\ufeff"]
_EMOJI_LINE = "😀 👍🏽 👩‍👩‍👧‍👦 🇮🇹🇯🇵 ❤️ ☎ 🏴‍☠️ 🤷🏻‍♀️ ✅ 1️⃣ #️⃣"
_EMOJI = _EMOJI_LINE.split()
_MARKS = "\u0300\u0301\u0308\u0327\u0331\u20d7\u093f\u0e35\u3099"
_CODE = (
    "def f(x):\n    return x**2  # two\n",
    "for(int i=0;i<10;++i){a[i]+=1;}\r\n",
    "SELECT * FROM t WHERE id=42 AND n<>'O''Brien';",
    '<div class="x">a &amp; b</div>\n\n\n',
    "\t\tif err != nil {\n\t\t\treturn nil, err\n\t\t}\n",
    "https://example.org/a/b?c=1&d=%20#e",
    'printf("%08.3f\\n", 3.14159e-10);',
    "0x1F 0b101 1_000_000 1.234.567,89 12:34:56 2024-02-29",
    "**bold** _it_ `code` | a | b |\n|---|---|\n",
    "rm -rf ./*.{c,h} && echo $HOME >> ~/.log 2>&1",
)

Maker = Callable[[random.Random], str]


def random_texts(seed: int, count: int, special: Sequence[str] = ()) -> Iterator[str]:
    """Yield `count` texts; some hold one of the `special` tokens' names."""
    rng = random.Random(seed)
    makers = list(_MAKERS) + [lambda rng: rng.choice(special)] * bool(special)
    for _ in range(count):
        text = "".join(_glue(rng) + rng.choice(makers)(rng) for _ in range(rng.randint(1, 9)))
        form = rng.choice((None, None, "NFC", "NFD"))
        yield unicodedata.normalize(form, text) if form else text


def _glue(rng: random.Random) -> str:
    return rng.choice(("", "", " ", " ", "\n", rng.choice(_SPACES)))


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(1, 6)))


def _cased(rng: random.Random) -> str:
    word = rng.choice(_WORDS)
    return rng.choice((word.upper(), word.title(), word.swapcase(), word.lower() + word.upper()))


def _contraction(rng: random.Random) -> str:
    end = rng.choice(("s", "t", "re", "ve", "m", "ll", "d", "x", "S", "T", "RE", "Ve", "lL"))
    return rng.choice(_WORDS) + rng.choice("''’") + end


def _number(rng: random.Random) -> str:
    digits = rng.choice(("0123456789", "0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "½²ⅷ①"))
    return "".join(rng.choices(digits, k=rng.randint(1, 12)))


def _signs(rng: random.Random) -> str:
    return "".join(rng.choices(_SIGNS, k=rng.randint(1, 5)))


def _space(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(_SPACES) * rng.randint(1, 20)
    return "".join(rng.choices(_SPACES + _RARE_SPACES, k=rng.randint(1, 6)))


def _marked(rng: random.Random) -> str:
    letters = rng.choices("aeionASZकกあЖ漢1. ", k=rng.randint(1, 5))
    return "".join(letter + "".join(rng.choices(_MARKS, k=rng.randint(0, 2))) for letter in letters)


def _any_characters(rng: random.Random) -> str:
    """Characters from anywhere in Unicode that Python knows, so not those of its next version."""
    found: list[str] = []
    while len(found) < 4:
        character = chr(rng.choice((rng.randrange(0x3000), rng.randrange(0x20000))))
        if unicodedata.category(character) not in ("Cs", "Cn", "Co"):
            found.append(character)
    return "".join(found)


_MAKERS: tuple[Maker, ...] = (
    _words,
    _words,
    _words,
    _cased,
    _contraction,
    _number,
    _signs,
    _space,
    _marked,
    _any_characters,
    lambda rng: rng.choice(_EMOJI),
    lambda rng: rng.choice(_CODE),
)
