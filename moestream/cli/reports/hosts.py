"""What ``doctor --hosts`` tells of several machines."""

from typing import Any

from moestream import ui


def print_hosts(found: dict[str, Any]) -> None:
    """Write a table of the hosts, how fast they talk, and what is wrong."""
    rows = [
        _row(host, speed) for host, speed in zip(found["hosts"], found["bandwidths"], strict=True)
    ]
    columns = ("host", "moestream", "backend", ">memory", ">copies", "file", ">from the one before")
    ui.print_table("hosts", columns, rows)
    trip, hops = found["round_trip_s"], len(rows)
    ui.print_line(f"around all of them: {1e3 * trip:.2f} ms, {1e3 * trip / hops:.2f} ms a hop")
    problems = [(f"{n}.", text) for n, text in enumerate(found["problems"], 1)]
    if problems:
        ui.print_fields("to change", problems)
    else:
        ui.print_line("nothing to change")


def _row(host: dict[str, Any], bandwidth: float) -> tuple[str, ...]:
    return (
        host["name"],
        host["version"],
        host["backend"],
        ui.format_memory(host["memory_bytes"]),
        f"{ui.format_memory(int(host['speed']))}/s",
        _file_told(host),
        f"{ui.format_memory(int(bandwidth))}/s",
    )


def _file_told(host: dict[str, Any]) -> str:
    if host["wrong"] is not None:
        return "none"
    hello = host["hello"]
    return "" if hello is None else f"{hello['file']}, {hello['header_sha256'][:8]}"
