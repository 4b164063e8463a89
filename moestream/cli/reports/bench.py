"""What ``moestream bench`` found, as rows: in words of llama-bench where it has them.

Owns the names, the order and the formats of columns, and the sums over repetitions.

Source: llama.cpp, tools/llama-bench, for names and formats.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moestream import __version__, ui
from moestream.closing import Closing

if TYPE_CHECKING:
    from moestream.bench import Sample, Test
    from moestream.engine.engine import Engine

FORMATS = ("md", "json", "jsonl", "csv")
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One test with one setting. What it says of the engine is taken while that is open."""

    setting: Fields
    test: "Test"
    samples: Sequence["Sample"]

    @classmethod
    def of(
        cls, engine: "Engine", test: "Test", samples: Sequence["Sample"], cold: bool, source: str
    ) -> "Row":
        """Take down what is measured."""
        setting = _setting(engine) | {"cold": cold, "tokens": source}
        return cls(setting, test, samples)

    def fields(self, budget: str) -> Fields:
        """Everything; ``budget`` is as it was given. Speeds are of repetitions' own means."""
        speeds = [sample.tps for sample in self.samples]
        times = [round(1e9 * sample.elapsed_s) for sample in self.samples]
        steps = sorted(step for sample in self.samples for step in sample.step_s)
        return {
            **self.setting,
            "budget": budget,
            "n_prompt": self.test.n_prompt,
            "n_gen": self.test.n_gen,
            "n_depth": self.test.n_depth,
            "test": self.test.name,
            "test_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "avg_ns": round(statistics.fmean(times)),
            "stddev_ns": round(_deviation(times)),
            "avg_ts": statistics.fmean(speeds),
            "stddev_ts": _deviation(speeds),
            "hit_rate": self._hit_rate(),
            "expert_bytes_per_token": self._per_token("expert_bytes"),
            "disk_bytes_per_token": self._per_token("disk_bytes"),
            "p50_ms": _percentile(steps, 50),
            "p99_ms": _percentile(steps, 99),
            "hop_ms": self._per_wait("hop_s"),
            "away_ms": self._per_wait("away_s"),
            "samples_ns": times,
            "samples_ts": speeds,
        }

    def _hit_rate(self) -> float | None:
        hits = sum(sample.hits for sample in self.samples)
        asked = hits + sum(sample.misses for sample in self.samples)
        return hits / asked if asked else None

    def _per_wait(self, name: str) -> float | None:
        """Milliseconds for each time that other machines' rows were waited for; None if never."""
        waits = sum(sample.waits for sample in self.samples)
        return 1e3 * sum(getattr(s, name) for s in self.samples) / waits if waits else None

    def _per_token(self, name: str) -> float | None:
        values = [getattr(sample, name) for sample in self.samples]
        if None in values:
            return None
        return float(sum(values) / sum(sample.n_tokens for sample in self.samples))


def _setting(engine: "Engine") -> Fields:
    from moestream.models.summary import summarize

    summary = summarize(engine.file)
    streaming, plan = engine.streaming, engine.plan
    choices = None if streaming is None else streaming.choices
    name = summary.name or engine.file.path.stem
    return {
        "build_version": __version__,
        "model_filename": str(engine.file.path),
        "model_type": " ".join(filter(None, [name, summary.file_type])),
        "model_size": summary.sizes.total_bytes,
        "model_n_params": summary.sizes.parameters,
        "backends": engine.backend.name,
        "n_threads": getattr(engine.backend, "threads", None),
        "type_k": engine.kv_types[0],
        "type_v": engine.kv_types[1],
        "budget_bytes": None if plan is None else plan.budget_bytes,
        "io": choices and choices.io,
        "pin": choices and choices.pin,
        "policy": choices and choices.policy,
        "prefetch_layers": choices and choices.prefetch_layers,
        "split": choices and choices.mean_split,
    }


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _percentile(steps: Sequence[float], percent: int) -> float | None:
    """Milliseconds that so many of the sorted steps do not exceed: nearest rank."""
    if not steps:
        return None
    return 1e3 * steps[max(math.ceil(len(steps) * percent / 100), 1) - 1]


class Writer(Closing):
    """Writes rows as they come, in one of ``FORMATS``. A context manager, which ends the output."""

    def __init__(
        self,
        format_name: str,
        tests: Sequence[str] = (),
        shown: Sequence[str] = (),
        *,
        shared: bool = False,
    ) -> None:
        """``tests`` are what will be measured; ``shown`` is what a table tells in every row.

        Those are of ``threads`` and ``budget`` what varies: the rest stands above the table, which
        has 80 columns then.
        """
        self._format = format_name
        self._written = 0
        self._columns = {name: _ABOVE[name] for name in shown} | _COLUMNS
        if shared:
            self._columns |= _SHARED
        self._widths = {name: width for name, (width, _) in self._columns.items()}
        self._widths["test"] = max([4, *map(len, tests)])

    def write(self, row: Fields) -> None:
        """Write one row."""
        if self._format == "md":
            self._write_markdown(row)
        elif self._format == "csv":
            values = {key: value for key, value in row.items() if not isinstance(value, list)}
            ui.write_text(_csv(values, head=not self._written))
        elif self._format == "jsonl":
            ui.print_json(row)
        else:
            ui.write_text(",\n" if self._written else "[\n")
            ui.print_json(row)
        ui.flush()
        self._written += 1

    def _write_markdown(self, row: Fields) -> None:
        if not self._written:
            above = [name for name in _ABOVE if name not in self._columns]
            told = filter(None, (_told(name, _ABOVE[name][1](row)) for name in above))
            ui.write_text(f"{', '.join(told)}\n\n")
            ui.write_text(self._line({name: name for name in self._columns}))
            rules = {n: f"{'-' * (width - 1)}:" for n, width in self._widths.items()}
            ui.write_text(self._line(rules))
        ui.write_text(self._line({name: cell(row) for name, (_, cell) in self._columns.items()}))

    def _line(self, cells: Mapping[str, str]) -> str:
        padded = [f"{cells[name]:>{self._widths[name]}}" for name in self._columns]
        return f"| {' | '.join(padded)} |\n"

    def close(self) -> None:
        """End what was begun."""
        if self._format == "json" and self._written:  # what was measured before an error counts
            ui.write_text("]\n")


def _csv(values: Mapping[str, Any], *, head: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(values), lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerow(values)
    return text.getvalue()


def _number(name: str, scale: float = 1, digits: int = 2) -> Any:
    def cell(row: Fields) -> str:
        return "" if row[name] is None else f"{row[name] * scale:.{digits}f}"

    return cell


def _speed(row: Fields) -> str:
    digits = 0 if row["avg_ts"] >= 1000 else 1 if row["avg_ts"] >= 100 else 2
    return f"{row['avg_ts']:.{digits}f} ± {row['stddev_ts']:.{digits}f}"


def _told(name: str, value: str) -> str:
    """What stands above the table, in words."""
    words = {"threads": f"{value} threads", "budget": f"budget {value}"}
    return words.get(name, value) if value else ""


_ABOVE: dict[str, tuple[int, Any]] = {
    "model": (24, lambda row: ui.printable(row["model_type"])),
    "size": (10, lambda row: f"{row['model_size'] / (1 << 30):.2f} GiB"),
    "params": (10, lambda row: f"{row['model_n_params'] / 1e9:.2f} B parameters"),
    "backend": (10, lambda row: row["backends"]),
    "threads": (7, lambda row: "" if row["n_threads"] is None else str(row["n_threads"])),
    "budget": (6, lambda row: row["budget"]),
}
"""What is the same in all rows, unless it is what is compared: heading to width and cell."""
_COLUMNS: dict[str, tuple[int, Any]] = {
    "test": (4, lambda row: row["test"]),
    "t/s": (13, _speed),
    "hits": (5, lambda row: "" if row["hit_rate"] is None else f"{row['hit_rate']:.1%}"),
    "MiB/tok": (7, _number("disk_bytes_per_token", 1 / (1 << 20))),
    "p50 ms": (6, _number("p50_ms")),
    "p99 ms": (6, _number("p99_ms")),
}
_SHARED: dict[str, tuple[int, Any]] = {
    "away ms": (7, _number("away_ms")),
    "hop ms": (6, _number("hop_ms")),
}
"""Of a model that machines share: what the others compute for a token, and the way to and fro."""
