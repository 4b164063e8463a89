"""The texts that the demo model's recipe is made from, and those it never sees.

Owns: which Debian packages are read, how plain text comes out of them, and the fixed split.
Knows nothing of models or tokens.

Sources (Debian 12; licences as named in each package's ``copyright`` file):

- debian-handbook (en, it, de, fr): GPL-2.0-or-later or CC-BY-SA-3.0
- debian-reference-{en,it,de,fr}: GPL-2.0-or-later
- debian-faq, debian-faq-{it,de,fr}: free to copy, modify and translate under the same notice
- maint-guide-{it,de,fr}, developers-reference-{it,de,fr}, developers-reference: GPL-2.0-or-later
- aptitude-doc-{en,it,fr}: GPL-2.0-or-later; installation-guide-amd64: GPL-2.0
- manpages, manpages-dev: each page's own free licence (GPL, BSD, MIT or the verbatim licence)
- manpages-{it,de,fr}: GPL-3.0-or-later and the licences of the pages translated
- Python's standard library: PSF-2.0

The recipe keeps statistics of these texts (directions, neuron sets and gains), no text.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

LANGUAGES = ("en", "it", "de", "fr")
DOMAINS = (*LANGUAGES, "code")
PACKAGES = (
    *("debian-handbook", "debian-faq", "developers-reference", "installation-guide-amd64"),
    *("aptitude-doc-en", "aptitude-doc-it", "aptitude-doc-fr", "manpages", "manpages-dev"),
    *(f"debian-reference-{language}" for language in LANGUAGES),
    *(
        f"{stem}-{language}"
        for language in ("it", "de", "fr")
        for stem in ("debian-faq", "developers-reference", "maint-guide", "manpages")
    ),
)
HELD_OUT_ONE_IN = 12


class Document(NamedTuple):
    """One text: its domain, a key that its translations share, and its words."""

    domain: str
    key: str
    text: str

    @property
    def rank(self) -> int:
        """A fixed pseudo-random number of the key: decides the split and the order."""
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big")

    @property
    def held_out(self) -> bool:
        """Whether the recipe must never see this document."""
        return self.rank % HELD_OUT_ONE_IN == 0


STOPWORDS = {
    "en": {"the", "of", "and", "to", "is", "that", "with", "for", "this", "are", "it", "be", "by"},
    "it": {"il", "di", "che", "la", "per", "un", "una", "è", "del", "della", "con", "non", "sono"},
    "de": {"der", "die", "und", "das", "ist", "nicht", "ein", "eine", "werden", "zu", "mit", "den"},
    "fr": {"le", "les", "des", "et", "est", "une", "pour", "dans", "que", "vous", "du", "sur"},
}
MIN_PARAGRAPH_CHARS = 80


class _Paragraphs(HTMLParser):
    """Collects the text of an HTML page, one string a block element."""

    BLOCKS = frozenset(
        ("p", "div", "li", "dt", "dd", "td", "th", "tr", "pre", "h1", "h2", "h3", "h4", "title")
    )

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._parts: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.BLOCKS:
            self.flush()
        self._skipping += tag in ("script", "style", "head")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.BLOCKS:
            self.flush()
        self._skipping -= tag in ("script", "style", "head")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._parts.append(data)

    def flush(self) -> None:
        text = " ".join("".join(self._parts).split())
        self._parts.clear()
        if text:
            self.paragraphs.append(text)


def fetch_packages(folder: Path) -> None:
    """Download and unpack the Debian packages that are not yet in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not (folder / name).is_dir()]
    if not missing:
        return
    subprocess.run(["apt-get", "download", "-q", *missing], cwd=folder, check=True)
    for name in missing:
        archive = next(folder.glob(f"{name}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / name)], check=True)


def load_documents(folder: Path) -> list[Document]:
    """All documents under `folder` and of Python's library, in a fixed pseudo-random order."""
    found = [*_html_documents(folder), *_man_pages(folder), *_python_files()]
    return sorted(found, key=lambda document: (document.rank, document.domain, document.key))


def _html_documents(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.rglob("*.html")):
        language = _language_of(path)
        if language is None or path.name.startswith(("index", "ix0")):
            continue
        parser = _Paragraphs()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        parser.flush()
        key = re.sub(r"\.(en|it|de|fr)\.html$", ".html", path.name)
        yield from _document(language, key, parser.paragraphs)


def _language_of(path: Path) -> str | None:
    """The language in a path such as ``html/it-IT/x.html``, ``de/x.html`` or ``x.fr.html``."""
    for part in reversed((*path.parts[:-1], path.name)):
        match = re.search(r"(?:^|[.-])([a-z]{2})(?:-[A-Z]{2})?(?:\.html)?$", part)
        if match:
            return match[1] if match[1] in LANGUAGES else None
    return "en" if "debian-faq" in path.parts or "developers-reference" in path.parts else None


def _man_pages(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.glob("manpages*/usr/share/man/**/*.gz")):
        if path.is_symlink():
            continue
        parent = path.parent.parent.name
        language = parent if parent in LANGUAGES else "en"
        source = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        yield from _document(language, path.name, roff_paragraphs(source))


def roff_paragraphs(source: str) -> list[str]:
    """The prose of a manual page, one string a paragraph, without its macros."""
    paragraphs: list[list[str]] = [[]]
    for line in source.splitlines():
        if line.startswith((".PP", ".P", ".LP", ".SH", ".SS", ".TP", ".IP", ".sp")):
            paragraphs.append([])
            continue
        line = re.sub(r"^\.(B|I|BR|IR|RB|RI|BI|IB|SM)\s+", "", line)
        if line.startswith((".", "'")):
            continue
        line = re.sub(r"\\f(\[?[A-Z]+\]?|.)|\\&|\\[|^]", "", line)
        line = re.sub(r"\\\(aq|\\\[aq\]", "'", line).replace("\\-", "-").replace("\\e", "\\")
        paragraphs[-1].append(re.sub(r"\\(\(..|\[[^]]*\])", "", line).replace('"', ""))
    return [" ".join(" ".join(lines).split()) for lines in paragraphs]


def _document(language: str, key: str, paragraphs: list[str]) -> Iterator[Document]:
    """A document of the paragraphs that are prose of that language, if enough is left."""
    kept = [p for p in paragraphs if len(p) >= MIN_PARAGRAPH_CHARS and _is_language(p, language)]
    text = "\n\n".join(dict.fromkeys(kept))
    if len(text) >= 10 * MIN_PARAGRAPH_CHARS:
        yield Document(language, key, text)


def _is_language(paragraph: str, language: str) -> bool:
    words = re.findall(r"\w+", paragraph.lower())
    hits = {name: sum(word in stop for word in words) for name, stop in STOPWORDS.items()}
    return hits[language] == max(hits.values()) and 20 * hits[language] >= len(words)


def _python_files() -> Iterator[Document]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted((*library.glob("*.py"), *library.glob("[a-z]*/*.py"))):
        name = path.relative_to(library).as_posix()
        if name.startswith(("site-packages", "test", "idlelib/idle_test", "config-", "lib2to3")):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > 2000:
            yield Document("code", name, text)
