"""The table of whole models by type: runs that were cut, what peers are asked, the page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from bench import type_speeds

SCRIPTS = Path(type_speeds.__file__).parent
BENCH = """#!{python}
import json, sys
asked = sys.argv[1:]
fast = asked[asked.index("--repack") + 1] == "1"
open({log!r}, "a").write("10"[not fast])
runs = [{{"n_prompt": 512, "n_gen": 0, "avg_ts": 200 if fast else 100}}]
runs += [{{"n_prompt": 0, "n_gen": 64, "avg_ts": 20 if fast else 10}}]
print(json.dumps(runs))
"""


def found(tps: float) -> dict[str, Any]:
    result = {"moestream_tps": tps, "llama_cpp_tps": 50.0, "llama_cpp_ratio": tps / 50}
    return {
        "isa": "avx512",
        "results": {"pp512": result, "tg64": result},
        "decoded": {
            "avx512": {"tps": tps, "read_gb_s": 40.0},
            "avx2": {"tps": 50.0, "read_gb_s": 41.0},
        },
        "token_bytes": 1e8,
    }


def test_a_row_tells_speeds_ratios_and_bytes_a_second() -> None:
    *_, row = type_speeds.table({"IQ2_XXS": found(100.0)}).splitlines()
    assert row == (
        "| IQ2_XXS | 100 | 50 (2.00) | - | 100 | 50 (2.00) | - | avx512 10.0/40, avx2 5.0/41 |"
    )


def test_the_pages_table_is_put_in_or_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    head, rest = f"# A\n\n{type_speeds.TITLE}\n\nSome\nwords.\n\n", "## B\n\n| other |\n"
    page.write_text(head + rest)
    for table in ("| new |\n|---|\n| 1 |\n", "| newer |\n|---|\n"):
        type_speeds.put_table(page, table)
        assert page.read_text() == f"{head}{table}\n{rest}"
    page.write_text(f"{head}| old |\n\nAfter.\n")
    type_speeds.put_table(page, "| new |\n")
    assert page.read_text() == f"{head}| new |\n\nAfter.\n"
    page.write_text("# A\n")
    with pytest.raises(SystemExit, match="no section"):
        type_speeds.put_table(page, "| new |\n")


def test_a_run_that_was_cut_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"IQ2_XXS": found(100.0)}))
    measured: list[str] = []

    def measure(type: str, *_: object) -> dict[str, Any]:
        measured.append(type)
        if type == "IQ1_M":
            raise KeyboardInterrupt
        return found(70.0) | {"took_s": 1.0}

    monkeypatch.setattr(type_speeds, "measure_type", measure)
    words = ["type_speeds.py", "vocabulary.gguf", "IQ2_XXS", "IQ3_S", "IQ1_M"]
    monkeypatch.setattr(sys, "argv", [*words, "--results", str(results)])
    with pytest.raises(KeyboardInterrupt):
        type_speeds.main()
    assert measured == ["IQ3_S", "IQ1_M"]
    assert list(json.loads(results.read_text())) == ["IQ2_XXS", "IQ3_S"]


@pytest.mark.slow
def test_a_peers_best_flags_alone_go_through_all_rounds(alphabet: Path, tmp_path: Path) -> None:
    log, bench = tmp_path / "log", tmp_path / "llama-bench"
    bench.write_text(BENCH.format(python=sys.executable, log=str(log)))
    bench.chmod(0o755)
    command = [sys.executable, str(SCRIPTS / "type_speed.py"), str(alphabet)]
    command += ["--threads", "1", "--repeats", "3", "--llama-bench", str(bench)]
    done = subprocess.run(
        [*command, "--ik", "/bin/false"], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert log.read_text() == "1011"
    assert told["results"]["tg64"]["llama_cpp_tps"] == 20
    assert told["results"]["pp512"]["moestream_tps"] > 0
    assert "ik_llama_cpp_tps" not in told["results"]["pp512"]
    assert "ik_llama_cpp: 1" in done.stderr
