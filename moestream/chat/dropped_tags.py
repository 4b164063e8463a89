"""Tags that are no part of an answer, taken out of it as it comes.

Pure: text in, text out. Which tags there are, and what is answer, is for others to know.
"""


class TagDropper:
    """Takes an answer in pieces, cut anywhere; white space beside its tags goes with them."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self._tags = tags
        self._held = ""
        self._blank = True  # nothing was told yet

    def add(self, text: str) -> str:
        """Return what is sure now."""
        self._held += text
        sure = ""
        while found := [(at, tag) for tag in self._tags if (at := self._held.find(tag)) >= 0]:
            at, tag = min(found)
            sure += self._tell(self._held[:at].rstrip())
            self._held = self._held[at + len(tag) :]
        kept = len(self._held) - max(overlap(self._held, tag) for tag in self._tags)
        more = self._held[:kept].rstrip()
        self._held = self._held[len(more) :]
        return sure + self._tell(more)

    def finish(self) -> str:
        """Return what was held back: the answer ends here, or a call interrupts it."""
        text, self._held = self._tell(self._held), ""
        self._blank = True
        return text

    def _tell(self, text: str) -> str:
        if self._blank:
            text = text.lstrip()
        self._blank = self._blank and not text
        return text


def overlap(text: str, marker: str) -> int:
    """How many characters at the end of the text may begin the marker."""
    lengths = range(min(len(marker) - 1, len(text)), 0, -1)
    return next((n for n in lengths if marker.startswith(text[-n:])), 0)
