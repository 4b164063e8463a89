"""The streaming options of ``moestream generate``, as a process."""

import gzip
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alphabet_model import ALPHABET
from command_line import Argument, run, start, wait_for_output

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream import choices as known
from moestream.choices import READ_METHODS
from moestream.cli.reports.streaming import warnings
from moestream.engine.engine import Engine
from moestream.errors import TraceError
from moestream.policies import POLICIES
from moestream.streaming.options import (
    STRATEGIES,
    StreamingOptions,
    by_strategy,
    knobs,
    read_knob,
)
from moestream.traces.format import DECODE, PREFILL, Trace, read_trace
from moestream.traces.recording import TraceRecorder
from moestream.traces.simulator import NAMES

GOLDEN = Path(__file__).parent / "data" / "golden"
EXPERT_BYTES = 4 * 3 * 32 * 264  # of the alphabet's one layer, with four of them
ASK = ("-p", "hello", "-s", "7")


def ask(model: Path, *arguments: Argument) -> dict[str, Any]:
    done = run("generate", model, *ASK, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_names_are_those_of_the_library() -> None:
    assert set(known.POLICIES) == set(POLICIES)
    assert set(NAMES) == set(known.POLICIES) | set(known.BOUNDS)
    assert set(STRATEGIES) == {"decay", "lru", "lfu", "fate", "moepic"}


def test_help_lists_the_keys_of_stream_with_their_defaults() -> None:
    told = unwrapped(run("generate", "--help-streaming").stdout)
    for key, each in knobs().items():
        assert f"{key}=" in told
        assert not each.told or f"[default: {each.told}]" in told


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_all_of_its_choices(name: str, alphabet: Path) -> None:
    value = ask(alphabet, "--budget", "1M", "--strategy", name)
    assert value["text"] == ALPHABET
    choices, asked = value["residency"]["choices"], by_strategy(name)
    for field in ("policy", "layer_budget", "prefetch_mass", "prefetch_layers"):
        assert choices[field] == getattr(asked, field)
    assert choices["asked_split"] == asked.split


def test_a_key_changes_a_part_of_a_strategy(alphabet: Path) -> None:
    changed = ("--strategy", "fate", "--stream", "layer-budget=uniform")
    choices = ask(alphabet, "--budget", "1M", *changed)["residency"]["choices"]
    assert (choices["policy"], choices["layer_budget"]) == ("arc", "uniform")


WAYS: list[list[str]] = [
    [],
    *(["--io", io] for io in READ_METHODS),
    *(["--stream", f"policy={policy}"] for policy in POLICIES),
    ["--no-prefetch"],
    ["--stream", "pin=mlock", "--stream", "prefetch-layers=2"],
    ["--stream", "pin=none"],
    ["--stream", "policy=blend", "--stream", "half-life=8"],
    ["--stream", "window=16", "--stream", "pin=copy"],
    ["--stream", "prefetch-mass=0.9"],
    ["--stream", "split=auto"],
    ["--stream", "split=0.5", "--io", "direct"],
    *(["--stream", f"layer-budget={kind}"] for kind in ("uniform", "shallow", "adaptive")),
]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_every_way_to_stream_gives_the_same_text(way: list[str], alphabet: Path) -> None:
    value = ask(alphabet, "--budget", "1M", *way)
    assert value["text"] == ALPHABET
    assert value["budget_bytes"] == 1 << 20
    choices = value["residency"]["choices"]
    for flag, chosen in zip(way[::2], way[1::2], strict=False):
        if flag == "--io":
            assert choices["io"] == chosen
        if flag == "--stream":
            name, asked = read_knob(chosen)
            assert choices.get(name, asked) == asked or name in ("pin", "split")
    if "--no-prefetch" in way:
        assert choices["prefetch_layers"] == 0


def test_json_tells_of_residency(alphabet: Path) -> None:
    residency = ask(alphabet, "--budget", "1M", "--io", "pread")["residency"]
    decode, plan = residency["decode"], residency["plan"]
    assert decode["hits"] + decode["misses"] == len(ALPHABET.encode()) * 2
    assert decode["hit_rate"] == decode["hits"] / (decode["hits"] + decode["misses"])
    assert residency["per_token"]["hits"] + residency["per_token"]["misses"] == pytest.approx(2)
    assert plan["total_expert_bytes"] == 4 * EXPERT_BYTES
    assert plan["experts_bytes"] == 0
    assert "1M" in plan["warning"]
    assert residency["choices"] == {
        "io": "pread",
        "pin": "copy",
        "policy": "decay",
        "prefetch_layers": 1,
        "layer_budget": "global",
        "prefetch_mass": None,
        "profile": None,
        "asked_split": 1.0,
        "split": {},
    }


def test_verbose_says_in_words_what_was_done(alphabet: Path) -> None:
    done = run("generate", alphabet, *ASK, "--budget", "1M", "--io", "pread", "-v")
    assert done.stdout == f"{ALPHABET}\n"
    told = unwrapped(done.stderr)
    assert "experts streamed within 1.00 MiB: io pread, pin copy, policy decay" in told
    for words in (
        "budget 1.00 MiB dense weights",
        "left for experts 0 bytes, 0% of all",
        "all experts 396 KiB",
        "io pread: into own memory, through the page cache",
        "found in memory",
        "of 56 experts asked for in decode",
        "major page faults",
    ):
        assert words in told, words


def test_without_verbose_the_choice_and_the_warning_are_told(alphabet: Path) -> None:
    done = run("generate", alphabet, *ASK, "--budget", "1M")
    warning, choices, timings = done.stderr.splitlines()
    assert warning.startswith("warning: --budget 1M is too small: this model needs ")
    assert (
        "0% of the experts in memory, the rest read from disk as needed (all choices: -v)"
        in choices
    )
    assert timings.startswith("prompt ")
    assert run("generate", alphabet, *ASK, "--budget", "1M", "-q").stderr == ""


@pytest.mark.parametrize(
    ("split", "told"),
    [("0.5", "policy decay, split 0.5, prefetch"), ("auto", "split 1 (auto), prefetch")],
)
def test_what_is_kept_of_an_expert_is_told(split: str, told: str, alphabet: Path) -> None:
    done = run(
        "generate",
        alphabet,
        *ASK,
        "--budget",
        "1M",
        "--io",
        "pread",
        "--stream",
        f"split={split}",
        "-v",
    )
    assert done.stdout == f"{ALPHABET}\n"
    assert told in unwrapped(done.stderr)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--strategy", "none"], "alphabet: mapped; "),
        (["--budget", "none"], "alphabet: mapped; "),
        (["--strategy", "none", "--budget", "none"], "alphabet: mapped; "),
        (["--budget", "100%"], "alphabet: all of it in memory; "),
        (["--budget", "100%", "--io", "direct"], "alphabet: all of the experts in memory; "),
    ],
)
def test_what_fits_is_mapped_unless_streaming_is_asked_for(
    flags: list[str], told: str, alphabet: Path
) -> None:
    done = run("generate", alphabet, *ASK, *flags, "-v")
    first, more = done.stderr.splitlines()[:2]
    assert first.startswith(told)
    assert ("experts streamed within" in more) == ("--io" in flags)


def test_a_limit_on_locking_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestream.streaming.build.can_lock", lambda *_: False)
    asked = StreamingOptions(pin="mlock")
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, backend="reference", budget="100%", streaming=asked) as engine:
        assert engine.streaming is not None
        assert engine.streaming.choices.policy == "none"
        (warning,) = warnings(engine, asked)
        assert "no expert is pinned" in warning
        assert warnings(engine, StreamingOptions()) == []


def test_options_that_a_dense_model_has_no_use_for_are_told() -> None:
    with Engine.open(GOLDEN / "llama.gguf", backend="reference", budget="auto") as engine:
        assert warnings(engine, None) == []
        assert warnings(engine, StreamingOptions()) == [
            "the model has no experts: there is nothing to stream"
        ]


def test_ctrl_c_leaves_a_whole_trace_and_the_statistics(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.route.csv.gz"
    endless = ("--raw", "-p", "0", "-c", "1000", "--budget", "1M", "--json", "--trace", path)
    process = start("generate", alphabet, *endless)
    told = b""  # first that the budget is too small, before the model is loaded
    while b"in memory" not in told:
        told += wait_for_output(process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    value = json.loads(out)
    assert value["stop_reason"] == "interrupted"
    if value["generated_tokens"] > 1:  # else the signal came before anything was routed
        assert value["residency"]["decode"]["turns"] > 0
        assert len(read_trace(path).rows) >= 2 * value["generated_tokens"]


def test_a_model_without_experts_has_nothing_to_trace(tmp_path: Path) -> None:
    with (
        Engine.open(GOLDEN / "llama.gguf", backend="reference") as engine,
        pytest.raises(TraceError, match="has no experts"),
    ):
        TraceRecorder(tmp_path / "t.csv", engine)
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--stream pin=copy --io madvise", "so --stream pin=copy does nothing"),
        ("--stream pin=mlock --io pread", "--stream pin=mlock goes with --io madvise"),
        ("--stream pin=none --io direct", "--stream pin=none goes with --io madvise"),
        ("--stream pin=none --strategy lru", "pin=none keeps no expert, so --strategy cannot be"),
        ("--stream pin=mlock --stream split=0.5", "pin=mlock leaves experts in the mapped file"),
        ("--io madvise --stream split=auto", "--io madvise leaves experts in the mapped file"),
        ("--io madvise --strategy moepic", "--io madvise leaves experts in the mapped file"),
        ("--stream split=0", "split is 0.0, expected auto, or a number of 0.01 to 1"),
        ("--stream pin=none --stream half-life=8", "keeps no expert, so --stream half-life cannot"),
        ("--strategy none --budget 1G", "--strategy none maps the file and streams nothing, so --"),
        ("--strategy none --io pread --stream window=3", "so --io and --stream window cannot be"),
        ("--budget none --no-prefetch", "--budget none maps the file and streams nothing, so --no"),
        ("--budget none --strategy lru", "so --strategy cannot be given with it"),
        ("--no-prefetch --stream prefetch-layers=2", "--no-prefetch reads nothing ahead"),
        ("--strategy lru --stream half-life=8", "policy lru has no use for it, so --stream half-l"),
        ("--stream policy=blend --stream window=8", "policy blend has no use for it, so --stream "),
        ("--stream hlaf-life=8", "there is no 'hlaf-life' to set; did you mean half-life?"),
        ("--stream window", "'window' has no value; expected window=VALUE"),
        ("--stream colour=8", "there is no 'colour' to set; there are policy, half-life"),
        ("--budget many", "'many' is no budget; expected 640M, 1.5G or 25%, auto or none"),
        ("--budget 0", "a budget of 0 holds nothing"),
        ("--stream half-life=nan", "half-life is nan, expected a number of 0.01 to 1000000000"),
        ("--stream half-life=0", "half-life is 0.0, expected a number of 0.01 to 1000000000"),
        ("--stream window=0", "window is 0, expected none, or a whole number of 1 or more"),
        ("--stream prefetch-layers=0", "prefetch-layers is 0, expected a whole number of 1 to 16"),
        ("--stream policy=best", "policy is 'best', expected one of decay, blend"),
        ("--strategy best", "'best' is not one of"),
        ("-q -v", "--quiet and --verbose exclude each other"),
    ],
)
def test_what_means_nothing_is_a_usage_error(flags: str, complaint: str) -> None:
    done = run("generate", "-p", "hello", *flags.split())
    assert done.returncode == 2
    assert complaint in unwrapped(done.stderr)
    assert done.stdout == ""


def test_more_than_there_is_is_one_clear_line(alphabet: Path) -> None:
    done = run("generate", alphabet, *ASK, "--budget", "9000T")
    assert done.returncode == 1
    assert re.fullmatch(r"error: --budget \d+M is more than the \d+M of .*\n", done.stderr)


def check_shape(trace: Trace, value: dict[str, Any]) -> None:
    """Every token that was run, with two experts of four each."""
    rows = trace.rows
    prompt, decoded = value["prompt_tokens"], len(ALPHABET.encode())
    assert rows["step"].tolist() == np.repeat(np.arange(prompt + decoded), 2).tolist()
    assert rows["phase"].tolist() == [PREFILL] * 2 * prompt + [DECODE] * 2 * decoded
    assert rows["slot"].tolist() == [0, 1] * (prompt + decoded)
    np.testing.assert_allclose(rows["weight"], 0.5)
    assert trace.header.expert_bytes == {0: EXPERT_BYTES}
    assert (trace.header.num_experts, trace.header.num_experts_per_tok) == (4, 2)


@pytest.mark.parametrize("name", ["run.route.csv", "run.route.csv.gz"])
def test_a_trace_of_a_mapped_run(name: str, alphabet: Path, tmp_path: Path) -> None:
    value = ask(alphabet, "--trace", tmp_path / name)
    trace = read_trace(tmp_path / name)
    check_shape(trace, value)
    assert trace.header.model == alphabet.name
    assert trace.header.arch == "llama"
    assert trace.rows["residency"].all()
    assert not trace.rows["expert_bytes"].any()


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_a_trace_of_a_streamed_run_agrees_with_its_statistics(
    io: str, alphabet: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.route.csv"
    value = ask(alphabet, "--budget", "1M", "--io", io, "--trace", path)
    trace = read_trace(path)
    check_shape(trace, value)
    counts = value["residency"]
    for phase, name in ((DECODE, "decode"), (PREFILL, "prefill")):
        rows = trace.rows[trace.rows["phase"] == phase]
        late = counts[name]["late"] * EXPERT_BYTES  # guessed, and not there in time
        assert rows["expert_bytes"].sum() == counts[name]["demand_bytes"] + late
        assert counts[name]["misses"] == (rows["expert_bytes"] > 0).sum() > 0
    decode = trace.rows[trace.rows["phase"] == DECODE]
    assert decode["residency"].sum() == counts["decode"]["hits"]


def test_simulate_reads_the_trace(alphabet: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.route.csv.gz"
    ask(alphabet, "--budget", "1M", "--trace", path)
    done = run("simulate", path, "--policy", "lru", "--budget", "100%", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["results"][0]["hit_rate"] == 1  # after prefill, which had asked for the same


@pytest.mark.parametrize("flags", [[], ["--budget", "1M"]])
def test_a_trace_that_cannot_be_written_is_one_clear_line(
    flags: list[str], alphabet: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "t.csv"
    done = run("generate", alphabet, *ASK, "--trace", path, *flags)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {path}: No such file or directory"


def test_the_cache_is_traced_beside_the_routing(alphabet: Path, tmp_path: Path) -> None:
    routing, cache = tmp_path / "run.route.csv", tmp_path / "cache.csv.gz"
    ask(
        alphabet,
        "--budget",
        "1M",
        "--io",
        "pread",
        "--trace",
        routing,
        "--stream",
        f"trace-cache={cache}",
    )
    rows = read_trace(routing).rows
    lines = gzip.decompress(cache.read_bytes()).decode().splitlines()
    assert lines[1] == "turn,phase,step,layer,resident"
    decoded = [line.split(",") for line in lines[2:] if line.split(",")[1] == str(DECODE)]
    assert decoded
    for _, _, step, layer, resident in decoded:
        asked = rows[(rows["step"] == int(step)) & (rows["layer"] == int(layer))]
        held = {int(expert) for expert in resident.split()}
        assert [expert in held for expert in asked["expert"]] == asked["residency"].tolist()


def test_there_is_no_cache_to_trace_where_nothing_is_streamed(
    alphabet: Path, tmp_path: Path
) -> None:
    done = run("generate", alphabet, *ASK, "--stream", f"trace-cache={tmp_path / 'c.csv'}")
    assert done.returncode == 1
    assert "no experts are streamed, so there is no cache to trace" in unwrapped(done.stderr)
    assert not (tmp_path / "c.csv").exists()
