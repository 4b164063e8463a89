"""What ``2000M`` and ``25%`` mean: amounts of memory as people write them.

M and G are binary, as in llama.cpp.
"""

import re

from moestream.errors import BudgetError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})\s*(%|[KMGT]?)(?:I?B)?", re.ASCII)


def parse_budget(text: str, total_bytes: int) -> int:
    """Return the bytes of ``640M``, ``1.5G``, ``25%`` (of ``total_bytes``) or a number of bytes.

    Raises:
        BudgetError: it is none of these, or less than one byte.
    """
    match = _AMOUNT.fullmatch(text.strip().upper())
    if match is None or (match[2] == "%" and match[0][-1] != "%"):
        raise BudgetError(f"{text!r} is no budget; expected 640M, 1.5G or 25%")
    unit = total_bytes / 100 if match[2] == "%" else _UNITS[match[2]]
    n_bytes = int(float(match[1]) * unit)
    if n_bytes < 1:
        raise BudgetError(f"a budget of {text} holds nothing; expected something like 640M or 25%")
    return n_bytes


def parse_memory(text: str, total_bytes: int) -> int:
    """The same of the memory of a process, where a number alone is a forgotten unit.

    Raises:
        BudgetError: as ``parse_budget``, or a bare number below a mebibyte.
    """
    n_bytes = parse_budget(text, total_bytes)
    if text.strip().isdecimal() and n_bytes < _UNITS["M"]:
        raise BudgetError(f"a budget of {text} is {text} bytes; expected an amount such as {text}G")
    return n_bytes
