"""Bytes and counts as people read them."""

from collections.abc import Sequence


def format_bytes(n_bytes: int) -> str:
    """Bytes of a download in the decimal units of the hub, to three digits: ``1.32 GB``."""
    return _scaled(n_bytes, (" bytes", " kB", " MB", " GB", " TB"))


def format_memory(n_bytes: float) -> str:
    """Bytes in the binary units in which budgets are given, to three digits: ``1.23 GiB``."""
    value, units = float(n_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    whole = units[0] == "bytes" or value >= 99.95
    return f"{value:.{0 if whole else 2 if value < 9.995 else 1}f} {units[0]}"


def format_count(count: int) -> str:
    """A count as model names have it: ``135M``, ``30.5B``."""
    return _scaled(count, ("", "K", "M", "B", "T"))


def _scaled(number: int, units: Sequence[str]) -> str:
    if number < 1000:
        return f"{number}{units[0]}"
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{units[unit]}"


def rate_told(tokens_per_s: float) -> str:
    """Write a speed as what follows a number of tokens; nothing where none was measured."""
    return f", {tokens_per_s:.1f} tok/s" if tokens_per_s else ""
