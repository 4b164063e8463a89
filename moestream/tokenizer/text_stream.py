"""Generated ids to text that is safe to print now, and the stop strings that end it.

Owns holding back what may yet become a stop string. Half characters are the tokenizer's
``Detokenizer``'s; end-of-generation ids are the engine's.
"""

from collections.abc import Sequence

from moestream.tokenizer import Tokenizer


class TextStream:
    """Turns ids into text as they come, up to the first stop string.

    A stop string counts when its last character comes, wherever the tokens' bounds are; the one
    that ends first wins. ``stopped`` is the stop string found, else None. Empty ones are ignored.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped: str | None = None
        self._detokenizer = tokenizer.detokenizer()
        # The longest first: of those that end at the same place it began first.
        self._stop = sorted(filter(None, stop), key=len, reverse=True)
        self._held = ""

    def add(self, token_id: int) -> str:
        """Return the text that can be printed now; none once stopped.

        Raises:
            ValueError: the id is outside the vocabulary.
        """
        return self._release(self._detokenizer.add(token_id))

    def finish(self, *, cut: bool = False) -> str:
        """Return what was held back: no stop string can come of it any more.

        Of a character that is not whole, U+FFFD; nothing if the text was ``cut`` off there.
        """
        text = "" if cut else self._release(self._detokenizer.finish())
        text, self._held = text + self._held, ""
        return text

    def _release(self, new: str) -> str:
        if self.stopped is not None or not new:
            return ""
        text, self._held = self._held + new, ""
        ends = [(text.find(stop) + len(stop), stop) for stop in self._stop if stop in text]
        if ends:
            end, self.stopped = min(ends, key=lambda found: found[0])
            return text[: end - len(self.stopped)]
        kept = len(text) - self._prefix_length(text)
        self._held = text[kept:]
        return text[:kept]

    def _prefix_length(self, text: str) -> int:
        """How many characters at the end of the text may begin a stop string."""
        longest = max(map(len, self._stop), default=0)
        lengths = range(min(longest - 1, len(text)), 0, -1)
        return next(
            (n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stop)), 0
        )
