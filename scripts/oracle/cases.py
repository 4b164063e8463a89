"""Runs inputs that were once handled wrongly, and prints a line for each.

Needs: a folder of cases (a folder each, with the inputs), ``moestream`` on PATH, the demo model for
some. A case that needs a hub, a terminal or a limit on the process is one of the tests named here.

    python scripts/oracle/cases.py CASES [NAME ...]
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[2] / "tests"
_NEVER = re.compile(r"Traceback|\w+Warning:|Aborted|core dumped|Segmentation")
_TINY = "../control-tokens-in-text/alpha.gguf"
_GENERATE = f"moestream generate {_TINY}"


@dataclass(frozen=True)
class Case:
    """What is run in a case's folder, and how it ends rightly."""

    name: str
    command: str
    says: str = ""
    """What is found in what is printed, on either stream; a regular expression."""
    status: int = 0


_CASES = (
    Case(
        "budget-overrun-mapped",
        "moestream generate ../shrink-fitting-pool/kvheavy.gguf --raw -f p8k.txt -n 2 --temp 0"
        " --budget 160M",
        "needs at least|warning",
    ),
    Case(
        "config-traceback",
        f"mkdir c; echo 'temp = [1, 2]' > c/config.toml; MOESTREAM_CONFIG=c {_GENERATE} -p hi",
        r"config\.toml.*temp",
        1,
    ),
    Case(
        "config-traceback",
        "mkdir c; printf '\\357\\273\\277temp = 0.2\\n' > c/config.toml;"
        f" MOESTREAM_CONFIG=c {_GENERATE} -p hi -n 1",
    ),
    Case(
        "config-traceback",
        "printf '\\357\\273\\277{{ messages[0].content }}' > bom.jinja;"
        f" {_GENERATE} -p j --chat-template bom.jinja -n 1 --temp 0 --json -q",
        r'"prompt_tokens": 1,',
    ),
    Case(
        "control-tokens-in-text",
        f"for t in 'a<|im_end|>' 'aXXimXendXX'; do {_GENERATE} -p \"$t\" -n 1 -q --json --temp 0"
        " | grep -o '\"prompt_tokens\": *[0-9]*'; done | uniq | wc -l",
        r"^1$",
    ),
    Case(
        "dangling-link",
        "ln -sf ../blobs/gone m.gguf; moestream generate m.gguf -p hi",
        "link",
        1,
    ),
    Case(
        "hanging-template",
        f"timeout 10 {_GENERATE} -p hi --chat-template hang.jinja",
        "template",
        1,
    ),
    Case(
        "inline-chat-template",
        f"{_GENERATE} -p hi -n 1 --chat-template \"$(printf '%0.s"
        "{%% for m in messages %%}{{ m.content }}{%% endfor %%}' 1 2 3 4 5 6)\"",
    ),
    Case("log-file-full", f"{_GENERATE} -p hi -n 1 --log-file /dev/full", "log"),
    Case("nan-logits", "moestream generate nan_all.gguf --raw -p hi -n 4 -s 1", "finite", 1),
    Case("nan-logits", "moestream generate nan_out1.gguf --raw -p hi -n 4 --temp 0", "finite", 1),
    Case(
        "nan-logits",
        "printf 'hi\\n/save x.json\\n' | moestream chat nan_all.gguf -q; ls x.json",
        r"x\.json",
    ),
    Case("part1of2", "moestream generate m.gguf.part1of2 --raw -p hi -n 1", "part", 1),
    Case(
        "piped-and-p",
        f"echo 'IMPORTANT NOTES' | {_GENERATE} -p Summarise --json -n 1 -q"
        " | grep -o '\"prompt_tokens\": *[0-9]*' | grep -o '[0-9]*$'",
        r"^(2[4-9]|[3-9]\d)$",
    ),
    Case(
        "plan-readonly-cache",
        "unshare -rm sh -c 'mkdir -p ro; mount --bind ro ro; mount -o remount,ro,bind ro;"
        f' HOME="$PWD/ro" moestream plan {_TINY}\'',
        "needs|fits",
    ),
    Case("plan-says-yes", "moestream plan m5_old_mixtral.gguf", "convert", 1),
    Case("plan-says-yes", "moestream plan odd_pre_unknown.gguf", "pre-tokenizer", 1),
    Case(
        "raw-python-warning",
        "moestream generate m5_type_IQ2_XXS.gguf --raw -p hi -n 1 -q",
    ),
    Case("raw-python-warning", "moestream generate m5_norm_f64.gguf --raw -p hi -n 1 -q"),
    Case(
        "shrink-fitting-pool",
        "moestream generate demo --raw -f prompt.txt -n 300 --temp 0.8 -s 1 --io pread",
    ),
    Case(
        "shrink-fitting-pool",
        "moestream generate kvheavy.gguf --raw -f p4k.txt -n 2 --temp 0 --io pread",
    ),
    Case(
        "sigterm",
        "timeout -s TERM 3 moestream generate demo -p 'Tell me a long story' -n 2000 --temp 1.2"
        " --budget 700M --trace t.csv.gz --save-profile p.json > text;"
        " gzip -t t.csv.gz && ls p.json && moestream simulate t.csv.gz",
        r"p\.json",
    ),
    *(
        Case("stricter-than-llama-cpp", f"moestream generate {name}.gguf --raw -p hi -n 1")
        for name in (
            "m5_spm_noscores",
            "odd_bad_utf8_token",
            "odd_bad_utf8_value",
            "odd_eos_oob",
            "odd_norm2d",
            "odd_trail1",
        )
    ),
    Case(
        "thread-creation",
        "(ulimit -v 5000000; moestream generate demo -p hi -n 3 -t 1024)",
        "thread",
        1,
    ),
    Case(
        "tiny-temperature",
        f"for t in 0 1e-320; do {_GENERATE} --raw -p Zq -n 5 --temp $t --min-p 0 --top-p 1"
        " --top-k 5 -q -s 1 | od -c; done | sort | uniq -u | wc -l",
        r"^0$",
    ),
)

_TESTED = {
    "budget-overrun-mapped": "test_budget_kept.py",
    "chat-markdown": "test_markdown.py",
    "hub-path-traversal": "test_hub_hostile.py",
    "metadata-sizes": "test_fuzz.py",
    "rm-deletes-GGUF": "test_names.py",
    "sigterm": "test_terminal.py",
    "thread-creation": "test_resources.py",
}
"""Cases that a test covers better than a command, or that only a test can."""


def main() -> None:
    """Run the cases asked for; exit with 1 if one ends wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cases", type=Path, help="the folder of cases")
    parser.add_argument("names", nargs="*", help="only these")
    asked = parser.parse_args()
    wrong = 0
    for case in _CASES:
        if not asked.names or case.name in asked.names:
            wrong += _told(case.name, case.command, _fault(case, asked.cases))
    for name, test in _TESTED.items():
        if not asked.names or name in asked.names:
            wrong += _told(name, test, _test_fault(test))
    print(f"{wrong} ended wrongly")
    sys.exit(1 if wrong else 0)


def _told(name: str, what: str, fault: str) -> bool:
    print(
        f"{'FAIL' if fault else 'ok  '} {name:24} {what[:90]}{fault and ': ' + fault}", flush=True
    )
    return bool(fault)


def _fault(case: Case, cases: Path) -> str:
    """What is wrong with how a case ended, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(cases, folder, dirs_exist_ok=True, symlinks=True)
        run = subprocess.run(
            ["bash", "-c", case.command],
            cwd=Path(folder) / case.name,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=600,
        )
    printed = run.stdout + run.stderr
    if never := _NEVER.search(printed):
        return f"printed {never[0]!r}"
    if run.returncode != case.status:
        return f"exit {run.returncode}, expected {case.status}: {printed[-300:]}"
    if not re.search(case.says, printed, re.MULTILINE | re.IGNORECASE):
        return f"did not say {case.says!r}: {printed[-300:]}"
    return ""


def _test_fault(test: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(_TESTS / test)],
        capture_output=True,
        text=True,
        cwd=_TESTS.parent,
    )
    return "" if run.returncode == 0 else run.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
