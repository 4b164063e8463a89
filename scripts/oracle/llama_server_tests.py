"""Runs llama-server's own tests against ``moestream serve``: docs/server-tests.md.

Needs: llama.cpp's source, the demo model, and in this environment pytest, requests, openai,
filelock and wget, which those tests import.

    python scripts/oracle/llama_server_tests.py --llama-cpp LLAMA [--llama-server BINARY] [--table]
        [--files basic stream] [--results FILE]

Nothing is copied or changed: a launcher stands in llama-server's place, and a plugin of pytest
leaves out what is tinyllama's, which their tests ask for. With ``--llama-server`` that one is asked
what failed here, with the same model. Which differences are meant is ``llama_server_verdicts``'.
The last line is JSON; the status is 1 if a difference is not explained.
"""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

_SCRIPTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_SCRIPTS))

from moestream.catalog import resolve  # noqa: E402
from oracle.llama_server_verdicts import Verdict, verdict_of  # noqa: E402

_FILES = (
    *("basic", "tokenize", "template", "completion", "chat_completion", "ctx_shift", "ignore_eos"),
    *("metrics", "security", "stream", "tool_call", "compat_anthropic", "compat_oai_responses"),
)
_PAGE = _SCRIPTS.parent / "docs" / "server-tests.md"
_HEAD = """\
# llama-server's own tests

What `scripts/oracle/llama_server_tests.py --table` wrote: the tests of llama-server that are of
what `moestream serve` has too, against it, with the demo model. What tinyllama says, and how many
tokens a text is to it, is not compared; what llama-server is told as it starts, and `serve` is told
in each request, is said there. Under *runs* is with how many parameters a test ran; under
*llama-server*, where a test fails here and it was asked too, how many of those pass there with the
demo model.

"""


def main() -> None:
    """Run, judge, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="llama.cpp's source")
    parser.add_argument("--llama-server", type=Path, help="a llama-server to be asked the same")
    parser.add_argument("--files", nargs="*", default=_FILES, help="parts of the tests, as basic")
    parser.add_argument("--table", action="store_true", help=f"write docs/{_PAGE.name}")
    parser.add_argument("--results", type=Path, help="a file of outcomes, which this run adds to")
    given = parser.parse_args()
    folder = given.llama_cpp.resolve() / "tools" / "server" / "tests"
    kept = given.results is not None and given.results.exists()
    found = json.loads(given.results.read_text()) if kept else {"ours": {}, "theirs": {}}
    new = run(folder, [f"unit/test_{part}.py" for part in given.files])
    failed = [test for test, outcome in new.items() if outcome == "failed"]
    found["ours"] |= new
    if given.llama_server and failed:
        found["theirs"] |= run(folder, failed, given.llama_server)
    if given.results is not None:
        given.results.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(tell(found["ours"], found["theirs"], write=given.table))


def tell(ours: dict[str, str], theirs: dict[str, str], *, write: bool) -> int:
    """Judge, print, and return the status."""
    judged = {test: verdict_of(test, outcome) for test, outcome in ours.items()}
    for test, verdict in judged.items():
        if verdict.kind in ("unexplained", "stale"):
            print(f"{verdict.kind}: {test}: {verdict.why}")
    if write:
        _PAGE.write_text(_HEAD + summary(ours, judged) + table(ours, theirs, judged))
    counts = Counter(verdict.kind for verdict in judged.values())
    counts["not_run"] = list(ours.values()).count("deselected")
    counts["failed_there_too"] = sum(theirs[test] == "failed" for test in theirs if test in ours)
    print(json.dumps(dict(sorted(counts.items()))))
    return 1 if counts["unexplained"] else 0


def run(folder: Path, tests: list[str], binary: Path | None = None) -> dict[str, str]:
    """The outcome of each test by its name."""
    with tempfile.TemporaryDirectory() as made:
        launcher, results = Path(made) / "launcher", Path(made) / "results"
        program = _SCRIPTS / "oracle" / "llama_server_launcher.py"
        launcher.write_text(f'#!/bin/sh\nexec {_quoted(sys.executable, program)} "$@"\n')
        launcher.chmod(0o755)
        results.touch()
        own = {
            "LLAMA_SERVER_BIN_PATH": str(launcher),
            "LAUNCHED_MODEL": str(resolve("demo")),
            "LAUNCHED_RESULTS": str(results),
            "PORT": str(_free_port()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": _paths(_SCRIPTS / "oracle", os.environ.get("PYTHONPATH")),
        }
        if binary is not None:
            own["LAUNCHED_BINARY"] = str(binary.resolve())
            own["LD_LIBRARY_PATH"] = _paths(
                binary.resolve().parent, os.environ.get("LD_LIBRARY_PATH")
            )
        options = ("-p", "llama_server_plugin", "-p", "no:cacheprovider", "-q", "--tb=no")
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, "-m", "not slow", *tests],
            cwd=folder,
            env=os.environ | own,
            stdout=sys.stderr,
            check=False,  # that tests fail is what is to be found out
        )
        lines = map(json.loads, results.read_text().splitlines())
        return {line["test"]: line["outcome"] for line in lines}


def summary(ours: dict[str, str], judged: dict[str, Verdict]) -> str:
    """The counts, in a sentence."""
    ran = [judged[test].kind for test, outcome in ours.items() if outcome != "deselected"]
    same = ran.count("passes") + ran.count("stale")
    return (
        f"Of {len(ran)} runs {same} pass, {ran.count('purpose')} differ on purpose and "
        f"{ran.count('inapplicable')} do not apply; {len(ours) - len(ran)} more were not run, as "
        "they download models.\n\n"
    )


def table(ours: dict[str, str], theirs: dict[str, str], judged: dict[str, Verdict]) -> str:
    """A line for each test and reason; those that differ only by their parameters are one."""
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for test in ours:
        whole = test.removeprefix("unit/test_").partition("[")[0].replace(".py::test_", ": ")
        verdict = judged[test]
        rows[whole, _told(verdict)].append(test)
    lines = ["| test | runs | llama-server | |", "|---|---:|---:|---|"]
    for (name, told), tests in rows.items():
        passed = sum(theirs.get(test) == "passed" for test in tests)
        known = str(passed) if any(test in theirs for test in tests) else ""
        lines.append(f"| {name} | {len(tests)} | {known} | {told} |")
    return "\n".join(lines) + "\n"


def _told(verdict: Verdict) -> str:
    words = {
        "passes": "the same",
        "purpose": "differs on purpose: ",
        "inapplicable": "does not apply: ",
        "unexplained": "**differs**: ",
        "stale": "the same; noted as: ",
    }
    return words[verdict.kind] + ("" if verdict.kind == "passes" else verdict.why)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _paths(first: Path, rest: str | None) -> str:
    return os.pathsep.join(filter(None, (str(first), rest)))


def _quoted(*parts: object) -> str:
    return shlex.join(map(str, parts))


if __name__ == "__main__":
    main()
