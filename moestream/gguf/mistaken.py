"""What is taken for a GGUF file and is none: pieces of one, pointers to one, other formats.

Owns how they are known, by name or by their first bytes, and what to do about them.
"""

import re

_PIECE = re.compile(
    r"(?P<whole>.+\.gguf)[.-](?:part-?(?P<number>\d+)of(?P<count>\d+)|part-?\w+|split-?\w+|\d{2,3})",
    re.IGNORECASE | re.DOTALL,
)
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; run git lfs pull"),
    (b"PK\x03\x04", "a ZIP archive, as PyTorch writes; convert the model to GGUF"),
    (b"ggml", "a model in a format from before GGUF; convert it again"),
    (b"lmgg", "a model in a format from before GGUF; convert it again"),
    (b"fmgg", "a model in a format from before GGUF; convert it again"),
    (b"tjgg", "a model in a format from before GGUF; convert it again"),
    (b"<", "a web page, not the file itself; download the file that the page is about"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
)


def piece_told(name: str) -> str | None:
    """Say that a file of this name is a piece, cut by bytes, and how to join them; else None."""
    match = _PIECE.fullmatch(name)
    if match is None:
        return None
    which = f"piece {match['number']} of {match['count']}" if match["count"] else "a piece"
    whole = match["whole"]
    return (
        f"{which} of a file that was cut by bytes; put all pieces into one folder, and join them "
        f"in their order: cat {whole}{name[len(whole)]}* > {whole}"
    )


def beginning_told(data: bytes) -> str | None:
    """Say what a file is that begins with other bytes than a GGUF file's; None where unknown."""
    begun = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((told for beginning, told in _BEGINNINGS if begun.startswith(beginning)), None)
