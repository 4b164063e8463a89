"""Check a library that was linked for macOS: its processor, and that nothing is left to be found.

    python scripts/native/macho.py LIBRARY ALLOWED

ALLOWED is nanobind's list for Apple's linker: the symbols (``-U NAME``) that the Python which loads
the library has. All others must come from a library that is named in it.

Source: Apple's mach-o/loader.h and mach-o/nlist.h.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

MAGIC, ARM64, LIBRARIES = 0xFEEDFACF, 0x0100000C, (6, 8)  # a dylib, a bundle
SYMBOL_TABLE = 2
DYNAMIC_LOOKUP, EXECUTABLE = 0xFE, 0xFF
"""Ordinals of no library: whoever loads this one is to have the symbol."""


def undefined(data: bytes) -> Iterator[tuple[str, int]]:
    """Symbols that come from elsewhere, and the number of the library; 0 is none."""
    commands, at = struct.unpack_from("<I", data, 16)[0], 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == SYMBOL_TABLE:
            symbols, count, strings = struct.unpack_from("<3I", data, at + 8)
            for index in range(count):
                name, kind, _, description = struct.unpack_from("<IBBH", data, symbols + 16 * index)
                if kind & 0x0E == 0 and kind & 0x01:  # external, in no section
                    begin = strings + name
                    text = data[begin : data.index(b"\0", begin)].decode()
                    yield text, description >> 8
        at += size


def main() -> None:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("allowed", type=Path)
    args = parser.parse_args()
    data = args.library.read_bytes()
    magic, processor, _, kind = struct.unpack_from("<4I", data)
    if (magic, processor) != (MAGIC, ARM64) or kind not in LIBRARIES:
        sys.exit(f"{args.library} is no library for macOS on arm64")
    allowed = {line.split()[1] for line in args.allowed.read_text().splitlines() if line.strip()}
    found = list(undefined(data))
    loose = {name for name, library in found if library in (0, DYNAMIC_LOOKUP, EXECUTABLE)}
    if not loose:
        sys.exit(f"{args.library} asks nothing of Python, which cannot be")
    if missing := loose - allowed:
        sys.exit(f"{args.library} lacks {', '.join(sorted(missing))}")
    print(
        f"{args.library.name}: {len(loose)} symbols of Python's, {len(found) - len(loose)} of macOS"
    )


if __name__ == "__main__":
    main()
