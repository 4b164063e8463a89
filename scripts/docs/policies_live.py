"""The tables of docs/policies.md that come from live runs. Knows the figures; measures nothing."""

from __future__ import annotations

import statistics
from typing import Any

Data = dict[str, Any]

COMMANDS = """    python scripts/bench/stream.py --model demo.gguf --cap 500M --cap 700M \\
        --timeout 300 \\
        --levers "mapped,lru,lfu,decay,fate,moepic,moepic whole,moepic 0.75,profile,auto" \\
        > bench.json
    python scripts/bench/shift.py --model demo.gguf --cap 500M > shift.json
"""
_BASES = {"mapped": "x none", "lru": "x lru", "auto": "x default"}
"""Systems that the others' speed is told as a multiple of."""
_COLUMNS = {
    "tps": "tok/s",
    "token_mib": "MiB a token",
    "hit_rate": "in memory or in time",
    "cached_rate": "of it cached",
    "stall_ms": "stall ms",
}


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def live(data: Data) -> str:
    """Every system under caps, against three of them."""
    head = "\n## Live, under caps\n\n"
    if data["live"] is None:
        return head + f"Not measured yet for this page; on a quiet machine:\n\n{COMMANDS}"
    rows = data["live"]["rows"]
    speeds = {(row["cap"], row["lever"]): row["tps"] for row in rows}
    lines = [[*_cells(row), *(_multiple(row, speeds, base) for base in _BASES)] for row in rows]
    text = (
        f"Medians of {max(len(row['runs']) for row in rows)} runs in two languages. `mapped` is "
        "`--strategy none`, `auto` the default. The last\ncolumns are multiples of their speed and "
        "of `lru`'s. *In memory or in time* is what Fate counts as a hit:\nin memory when its "
        "layer asked, whether kept or guessed in time.\n\n"
    )
    columns = ["cap", "system", *_COLUMNS.values(), *_BASES.values()]
    return head + text + COMMANDS + "\n" + table(columns, lines) + _kept(rows) + _recall(rows)


def _cells(row: Data) -> list[str]:
    told = [_figure(row.get(key)) for key in _COLUMNS]
    if row["tps"] is None:
        told[0] = row["error"]
    return [row["cap"], row["lever"], *told]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _multiple(row: Data, speeds: dict[tuple[str, str], float | None], base: str) -> str:
    one, other = row["tps"], speeds.get((row["cap"], base))
    return "-" if one is None or not other else f"{one / other:.2f}"


def _kept(rows: list[Data]) -> str:
    """What the configurator chose to keep of an expert."""
    found = []
    for row in rows:
        splits = [run["split"] for run in row["runs"] if "split" in run]
        if row["lever"] == "moepic" and splits:
            found.append(f"{row['cap']}: {statistics.mean(splits):.2f}")
    if not found:
        return ""
    return f"\nShare of an expert that the configurator had kept in `moepic`: {', '.join(found)}.\n"


def _recall(rows: list[Data]) -> str:
    """Recall by layer of the guesses that were made."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for run in row["runs"]:
            for layer, recall in run.get("residency", {}).get("recall", {}).items():
                found.setdefault(row["lever"], {}).setdefault(int(layer), []).append(recall)
    shown = [lever for lever in ("auto", "fate") if lever in found]
    if not shown:
        return ""
    text = (
        "\nRecall of the guesses by layer, live, in %: with k guesses (`auto`), with twice k "
        "(`fate`).\n\n"
    )
    layers = sorted(set().union(*(found[lever] for lever in shown)))
    lines = [
        [lever, *(f"{100 * statistics.mean(found[lever].get(n, [0])):.0f}" for n in layers)]
        for lever in shown
    ]
    return text + table(["guesses", *map(str, layers)], lines)


def shift(data: Data) -> str:
    """The curve of a session that turns from Italian to code, live."""
    found = data["live_shift"]
    if found is None:
        return ""
    text = (
        f"\n### Live, at a cap of {found['cap']}\n\nThe engine is given Italian and, from token "
        f"{found['turn']} on, code, token by token;\nwithout prefetch; medians of "
        f"{found['repeat']} runs. Each {found['window']} tokens, by the first of them.\n"
    )
    names = {"tps": "tok/s", "hit_rate": "hits, %", "token_mib": "MiB a token"}
    for key, name in names.items():
        scale = 100 if key == "hit_rate" else 1
        length = len(next(iter(found["curves"].values()))[key])
        columns = [name, *(str(8 + n * found["window"]) for n in range(length))]
        lines = [
            [f"`{policy}`", *(f"{scale * value:.0f}" for value in curve[key])]
            for policy, curve in found["curves"].items()
        ]
        text += "\n" + table(columns, lines)
    return text


def speed_told(data: Data, lever: str) -> str:
    """What one system is worth, by cap; nothing where it was not measured."""
    if data["live"] is None:
        return ""
    speeds = {(row["cap"], row["lever"]): row["tps"] for row in data["live"]["rows"]}
    told = []
    for cap in dict.fromkeys(row["cap"] for row in data["live"]["rows"]):
        one = speeds.get((cap, lever))
        parts = [
            f"{one / other:.2g} times `{base}`"
            for base in _BASES
            if one and base != lever and (other := speeds.get((cap, base)))
        ]
        if parts:
            told.append(f"{cap}: {', '.join(parts)}")
    return f"; live, {'; '.join(told)}" if told else ""
