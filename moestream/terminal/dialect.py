"""The Markdown of a chat: CommonMark with tables, less all that would hide what a model said.

HTML, entities and definitions of links are text; a backslash stays where it is no escape of
Markdown's own signs but, most likely, of TeX; an asterisk between letters or digits is a product.
"""

from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.emphasis import tokenize as read_emphasis
from markdown_it.rules_inline.escape import escape as read_escape

_ESCAPED = frozenset("*_`#~-+.<>|\n")
"""After a backslash, these are Markdown's signs; others, as in ``\\[`` and ``\\{``, are TeX's."""


@cache
def parser() -> MarkdownIt:
    """What reads it."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    markdown.disable(["reference", "entity", "html_block", "html_inline"])
    markdown.inline.ruler.at("escape", _escape)
    markdown.inline.ruler.at("emphasis", _emphasis)
    for name in ("normalizeLink", "normalizeLinkText"):
        setattr(markdown, name, lambda url: url)  # shown as it was written
    markdown.validateLink = lambda url: True  # type: ignore[method-assign]
    return markdown


def _escape(state: StateInline, silent: bool) -> bool:
    following = state.src[state.pos + 1 : state.pos + 2]
    if state.src[state.pos] != "\\" or not following:
        return False
    if following in _ESCAPED:
        return read_escape(state, silent)
    taken = 2 if following == "\\" else 1
    if not silent:
        state.pending += "\\" * taken
    state.pos += taken
    return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    before, after = state.src[state.pos - 1 : state.pos], state.src[state.pos + 1 : state.pos + 2]
    between = before.isascii() and before.isalnum() and after.isascii() and after.isalnum()
    if silent or not between or state.src[state.pos] != "*":
        return read_emphasis(state, silent)
    state.pending += "*"
    state.pos += 1
    return True
