"""What a model said is on the screen: all of it, and code as it was."""

import io
import string
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from moestream.terminal.markdown import BlockStream, Line, render


def console(**options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, **options)  # type: ignore[arg-type]


def blocks_of(text: str) -> Iterator[str]:
    stream = BlockStream()
    yield from stream.add(text)
    yield stream.finish()


def drawn(text: str, width: int = 79, *, fold_code: bool = False) -> list[Line]:
    return [
        line
        for block in blocks_of(text)
        for line in render(console(), block, width, fold_code=fold_code)
    ]


def screen(text: str, width: int = 79) -> str:
    return "\n".join(line.text for line in drawn(text, width))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Use #include <string> and vector<int>.", "Use #include <string> and vector<int>."),
        ("<div>\nhello\n</div>", "<div>\nhello\n</div>"),
        ("Term<br>line two", "Term<br>line two"),
        ("<!-- a remark -->", "<!-- a remark -->"),
        ("Roses\nare\nred", "Roses\nare\nred"),
        ("1. one\n2. two", "1. one\n2. two"),
        ("9) nine\n10) ten", " 9) nine\n10) ten"),
        ("1. a\n1. b\n1. c", "1. a\n1. b\n1. c"),
        ("2024. was a year", "2024. was a year"),
        ("- a\n  - b\n- c", "• a\n  • b\n• c"),
        ("- a\n\n- b", "• a\n\n• b"),
        ("see [docs](http://x/é?a=1&b)", "see docs (http://x/é?a=1&b)"),
        ('[a](http://x "a title")', 'a (http://x "a title")'),
        ("![a cat](cat.png)", "a cat (cat.png)"),
        ("<https://x.y> [http://a](http://a)", "https://x.y http://a"),
        ("[run](javascript:alert)", "run (javascript:alert)"),
        ("[a]: http://b 'c'", "[a]: http://b 'c'"),
        ("&amp; &lt;b&gt; &nbsp;", "&amp; &lt;b&gt; &nbsp;"),
        (r"\*no\* \[ \{x\} \\ y \]", r"*no* \[ \{x\} \\ y \]"),
        ("2*3*4 and f(*args, **more)", "2*3*4 and f(*args, **more)"),
        ("**bold** *em* ~~gone~~ `code` 重**点**内", "bold em gone code 重点内"),
        ("# Title\ntext", "Title\ntext"),
        ("```python\nx\n```", "python\nx"),
        ("> said\n> so", "▌ said\n▌ so"),
        ("|a|b|\n|-|-|\n|1|2|3|", "|a|b|\n|-|-|\n|1|2|3|"),  # a cell too many would be dropped
    ],
)
def test_what_is_said_is_shown(said: str, shown: str) -> None:
    assert screen(said) == shown


CODE = 'def f():\n\n    return "' + "x" * 100 + '"  # <b>\n1. *a*'


@pytest.mark.parametrize("before", ["", "- ", "1. ", "> ", "- a\n  - "])
def test_code_is_copied_as_it_was(before: str) -> None:
    indent = " " * len(before.rpartition("\n")[2])
    inner = "> " if before == "> " else indent
    said = before + f"\n{inner}".join(["```", *CODE.split("\n"), "```"])
    assert f"\n{screen(said, 40)}".endswith(f"\n{CODE}")
    assert all(line.width <= 40 for line in drawn(said, 40, fold_code=True))  # as it is written


def visible(text: str) -> Counter[str]:
    # A mark that stands alone takes no column: there is nothing of it to see.
    seen = (c for c in text if not c.isspace() and cell_len(c))
    return Counter(c for c in seen if c not in string.punctuation)


SIGNS = st.text("ab1 \n#-`>*|1.[]():<>&;\\_~!\"'é字\t", max_size=60)
WORDS = st.lists(
    st.sampled_from(
        [
            *("```py\n", "```\n", "\n", "\n\n", "    ", "- ", "1. ", "> ", "# ", "|", "|-|-|\n"),
            *("<div>", "</div>\n", "&lt;", "[a](http://b 'c')", "![d](e)", "[f]: g\n", "**", "*"),
            *("\\[", "word ", "a|b\n", "~~", "`", "<!-- h -->", "http://i.j/k?l=m&n=o", "\\", "字"),
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(SIGNS, WORDS, st.text(max_size=80)), st.sampled_from([8, 20, 79]))
@example("|a|b|\n|-|-|\n|word|word", 8)
@example("- " * 30 + "deep", 8)
@example("> " * 30 + "deep", 20)
@example("~~~000000000", 8)
def test_every_visible_character_is_on_the_screen(text: str, width: int) -> None:
    said = visible("".join(blocks_of(text)))
    for fold in (False, True):
        lines = drawn(text, width, fold_code=fold)
        assert said <= visible("".join(line.text for line in lines))
        assert all(line.width <= width for line in lines if fold)


def test_colours_are_good_on_dark_and_on_light() -> None:
    said = (
        "`code` **b** [l](u)\n\n```python\ndef f(): return 1, 'a'  # c\n```\n\n> q\n\n|a|\n|-|\n|b|"
    )
    coloured = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    codes = set()
    for block in blocks_of(said):
        for line in render(coloured, block, 79):
            codes |= {
                code
                for run in line.text.split("\x1b[")[1:]
                for code in run.split("m")[0].split(";")
            }
    # No bright colours, no white, yellow or black, and no background.
    assert codes <= {"0", "1", "2", "3", "4", "9", "31", "32", "35"}
    assert {"31", "32", "35"} <= codes
