"""``moestream bench``: what is measured, and how it is told."""

import csv
import io
import json
import mmap
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import Argument, run, usage_error

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream import bench
from moestream.bench import Sample, Test, Tokens
from moestream.cli.reports.bench import Row, _percentile
from moestream.engine.engine import Engine
from moestream.streaming.page_cache import drop_pages

QUICK = ("-p", "16", "-n", "8", "-r", "3", "--no-warmup")
STREAMED = ("--budget", "1M", "--io", "pread")


def measure(model: Path, *arguments: Argument) -> list[dict[str, Any]]:
    done = run("bench", model, "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert isinstance(rows, list)
    return rows


@pytest.mark.parametrize(
    ("test", "name"),
    [
        (Test(512, 0), "pp512"),
        (Test(0, 128), "tg128"),
        (Test(512, 128), "pp512+tg128"),
        (Test(0, 128, 1024), "tg128 @ d1024"),
    ],
)
def test_tests_are_called_as_in_llama_bench(test: Test, name: str) -> None:
    assert test.name == name


def test_every_row_has_llama_benchs_names_and_sums(alphabet: Path) -> None:
    prefill, decode = measure(alphabet, *QUICK)
    assert (prefill["n_prompt"], prefill["n_gen"], prefill["test"]) == (16, 0, "pp16")
    assert (decode["n_prompt"], decode["n_gen"], decode["test"]) == (0, 8, "tg8")
    for row, tokens in ((prefill, 16), (decode, 8)):
        times, speeds = row["samples_ns"], row["samples_ts"]
        assert len(times) == len(speeds) == 3
        assert row["avg_ts"] == pytest.approx(sum(speeds) / 3)
        assert row["avg_ns"] == pytest.approx(sum(times) / 3, abs=1)
        assert row["stddev_ts"] ** 2 == pytest.approx(
            sum((speed - row["avg_ts"]) ** 2 for speed in speeds) / 2
        )
        assert speeds == pytest.approx([1e9 * tokens / time for time in times], rel=1e-3)
    assert decode["p50_ms"] <= decode["p99_ms"]
    assert prefill["p50_ms"] is None
    assert decode["hit_rate"] is None  # mapped: nobody looks
    assert decode["type_k"] == "f16"


def test_streaming_is_counted_in_the_timed_part_alone(alphabet: Path) -> None:
    (row,) = measure(alphabet, "-p", "0", "-n", "8", "-r", "2", "-d", "5", *STREAMED)
    assert row["io"] == "pread"
    assert row["budget"] == "1M"
    assert row["budget_bytes"] == 1 << 20
    assert 0 <= row["hit_rate"] <= 1
    with Engine.open(alphabet, budget="1M") as engine:
        tokens = Tokens(engine, "text")
        bench.warm_up(engine, Test(3, 40), tokens)
        sample = bench.run(engine, Test(0, 8, 5), tokens, 0)
        assert sample.hits + sample.misses == 2 * 8  # two experts a token, one layer
        assert len(sample.step_s) == 8
        assert sample.expert_bytes is not None


def test_what_is_decoded_is_the_models_own_answer(alphabet: Path) -> None:
    with Engine.open(alphabet) as engine:
        tokens = Tokens(engine, "text")
        assert tokens.prompt(0, 5) != tokens.prompt(1, 5)
        session = engine.session()
        bench._decode(session, ord("a"), 5, tokens.chooser(0))
        assert bytes(session.tokens).decode() == ALPHABET[:5]
        random = Tokens(engine, "random")
        assert random.prompt(0, 64) == random.prompt(0, 64)
        assert max(random.prompt(0, 64)) < engine.config.vocab_size


def test_lists_are_all_combined(alphabet: Path) -> None:
    lists = ("-p", "4,8", "-n", "0", "-pg", "3,2", "-d", "0,6", "-t", "1,2", "--budget", "1M,none")
    rows = measure(alphabet, *lists, "-r", "1")
    assert len(rows) == 3 * 2 * 2 * 2
    shown = [(row["n_threads"], row["budget"], row["test"]) for row in rows]
    assert shown[:4] == [
        (1, "1M", "pp4"),
        (1, "1M", "pp8"),
        (1, "1M", "pp3+tg2"),
        (1, "1M", "pp4 @ d6"),
    ]
    assert len(set(shown)) == len(shown)


def test_a_table_for_people_and_lines_for_programs(alphabet: Path) -> None:
    done = run("bench", alphabet, *QUICK, *STREAMED)
    above, blank, *table = done.stdout.splitlines()
    assert re.fullmatch(
        r"Alphabet.*, 0.00 GiB, 0.00 B parameters, cpu, \d+ threads, budget 1M", above
    )
    assert blank == ""
    head, rule, *rows = [line.split("|")[1:-1] for line in table]
    names = ["test", "t/s", "hits", "MiB/tok", "p50 ms", "p99 ms"]
    assert [cell.strip() for cell in head] == names
    assert all(set(cell.strip()) <= {"-", ":"} for cell in rule)
    assert [[len(cell) for cell in row] for row in (rule, *rows)] == [list(map(len, head))] * 3
    assert [row[0].strip() for row in rows] == ["pp16", "tg8"]
    assert "±" in rows[0][1]
    assert "io pread" in done.stderr
    compared = run("bench", alphabet, *QUICK, "--budget", "1M,none", "-t", "1,2").stdout
    assert compared.splitlines()[2].split("|")[1:3] == [" threads ", " budget "]
    assert max(map(len, (done.stdout + compared).splitlines())) <= 80

    (row, _) = json.loads(run("bench", alphabet, *QUICK, "--json").stdout)
    assert row["test"] == "pp16"
    lines = run("bench", alphabet, *QUICK, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["test"] for line in lines] == ["pp16", "tg8"]
    text = run("bench", alphabet, *QUICK, "-o", "csv").stdout
    read = list(csv.DictReader(io.StringIO(text)))
    assert [row["test"] for row in read] == ["pp16", "tg8"]
    assert float(read[0]["avg_ts"]) > 0
    assert "samples_ns" not in read[0]


def test_percentiles_are_of_the_nearest_rank() -> None:
    steps = [n / 1000 for n in range(1, 201)]
    assert _percentile(steps, 50) == 100
    assert _percentile(steps, 99) == 198
    assert _percentile([0.004], 99) == 4
    assert _percentile([], 50) is None


def test_hit_rate_and_bytes_are_of_all_repetitions() -> None:
    samples = [
        Sample(4, 2.0, (), hits=1, misses=3, expert_bytes=100, disk_bytes=None),
        Sample(4, 1.0, (), hits=4, misses=0, expert_bytes=20, disk_bytes=None),
    ]
    fields = Row({}, Test(0, 4), samples).fields("1G")
    assert fields["hit_rate"] == 5 / 8
    assert fields["expert_bytes_per_token"] == 15
    assert fields["disk_bytes_per_token"] is None
    assert fields["avg_ts"] == 3.0


@pytest.fixture
def on_disk(alphabet: Path, tmp_path: Path) -> Path:
    """A copy of the model whose pages can be dropped: not where files are memory."""
    path = tmp_path / "copy.gguf"
    path.write_bytes(alphabet.read_bytes())
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=False
    )
    if kind.stdout.strip() in ("", "tmpfs"):
        pytest.skip("no Linux, or files here are memory")
    return path


def test_pages_in_use_are_counted(on_disk: Path) -> None:
    with on_disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert len(bytes(data)) == len(data)
        assert drop_pages([on_disk]) >= len(data)
    assert drop_pages([on_disk]) == 0


def test_a_cold_start_reads_from_the_disk_or_says_that_it_does_not(on_disk: Path) -> None:
    cold = ("-p", "0", "-n", "4", "-r", "2", "--cold", "--budget", "1M", "--io", "madvise")
    done = run("bench", on_disk, *cold, "-o", "json")
    (row,) = json.loads(done.stdout)
    assert "page cache" not in done.stderr
    assert row["cold"] is True
    assert len(row["samples_ns"]) == 2
    with on_disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert len(bytes(data)) == len(data)
        done = run("bench", on_disk, *cold)
    assert done.returncode == 0
    assert done.stderr.count("stays in the page cache") == 1


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("-p 0 -n 0", "leave nothing to measure"),
        ("-p 1,x", "'x' is not a whole number of at least 0"),
        ("-p -4", "'-4' is not a whole number"),
        ("-t 0", "'0' is not a whole number of at least 1"),
        ("-pg 512", "'512' is not a pair of numbers"),
        ("-pg 0,4", "'0,4' is not a pair of numbers"),
        ("-r 0", "0 is not in the range"),
        ("-o sql", "'sql' is not one of"),
        ("--budget 1G,many", "'many' is no budget"),
        ("--budget 1G,none --io pread", "--budget none maps the file"),
    ],
)
def test_wrong_input_is_a_usage_error(flags: str, complaint: str, alphabet: Path) -> None:
    assert complaint in usage_error("bench", alphabet, *flags.split())


def test_more_context_than_can_be_is_one_line(alphabet: Path) -> None:
    done = run("bench", alphabet, "-p", "0", "-n", "1", "-d", "99", "-r", "1", "--budget", "99999G")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --budget ")


def test_a_context_beyond_the_models_own_is_warned_of(tmp_path: Path) -> None:
    model = write_alphabet_model(tmp_path / "m.gguf", context=20)
    done = run("bench", model, *QUICK, "-d", "10")
    assert done.returncode == 0
    assert "warning: a context of 27 is more than the model's own 20" in done.stderr
