"""Files that a message names with ``@``, whose text goes with it.

Owns how such a name is written, and how the model is shown a file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from moestream.errors import ConversationError
from moestream.folders import read_bytes
from moestream.reasons import reason_of

_NAMED = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_BEGUN = re.compile(r'(?<!\S)@"?([^"\n]*)$')
_AFTER = ",;:!?)]}"
"""What may stand at the end of a name without being a part of it; and a full stop."""
_FENCE = "```"
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file and its text."""

    path: Path
    text: str


def with_files(message: str) -> tuple[str, list[Attachment]]:
    """A message with the files that it names after it, and what they are.

    A name that no file has is text, as in ``@someone``.

    Raises:
        ConversationError: a file that is no text, or a very large one.
        OSError: it cannot be read.
    """
    paths = {path: None for match in _NAMED.finditer(message) if (path := _path(match)) is not None}
    found = [Attachment(path, _read(path)) for path in paths]
    parts = [message, *(_shown(each) for each in found)]
    return "\n\n".join(parts), found


def begun_name(before: str) -> str | None:
    """What there is of a file's name before the cursor; None where none was begun."""
    match = _BEGUN.search(before)
    return None if match is None else match[1]


def _path(match: re.Match[str]) -> Path | None:
    named = match[1] or match[2]
    for name in (named, named.rstrip(_AFTER), named.rstrip(f".{_AFTER}")):
        try:
            path = Path(name).expanduser()
            if name and path.is_file():
                return path
        except (OSError, RuntimeError, ValueError):  # no name that a file can have
            continue
    return None


def _read(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ConversationError(f"{path} is too large for a message: over {_MOST_BYTES >> 20} MiB")
    try:
        return read_bytes(path).decode("utf-8-sig").rstrip("\n")
    except UnicodeDecodeError as error:
        raise ConversationError(f"{path} is no text: {reason_of(error)}") from None


def _shown(attachment: Attachment) -> str:
    fence = _FENCE
    while fence in attachment.text:
        fence += "`"
    return f"{attachment.path.name}:\n{fence}\n{attachment.text}\n{fence}"
