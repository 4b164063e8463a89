"""Whole models with experts of one type, beside llama.cpp and ik_llama.cpp: a table, type by type.

The file of each type is Qwen3-30B-A3B's shape with fewer layers (synthetic.py), measured by
type_speed.py and removed. Results go to a JSON file as they come, and a type that is there is not
measured again, so a run can be cut and goes on when it is started anew. Only what measures needs a
quiet machine: --prefix puts a command before it, such as one that stops everything else.

    python scripts/bench/type_speeds.py vocabulary.gguf IQ2_XXS IQ3_S --llama-bench PATH --ik PATH
    python scripts/bench/type_speeds.py --page docs/performance.md     # its table, from the JSON

All the speeds of decoding are told as bytes a second as well, with each instruction set, of those
that the memory gives in the same run: a token reads all that is dense, and the experts that it
chooses. What a peer does not know has a dash. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from moestream import _native
from moestream.folders import replacing
from moestream.gguf import GGUFFile

FOLDER = Path(__file__).parent
TITLE = "### Whole models of each type"
HEAD = "| experts | pp512 | llama.cpp | ik | tg64 | llama.cpp | ik | of the memory's GB/s |"
ISAS = ("avx512", "avxvnni", "avx2", "neon-i8mm", "neon")
Found = dict[str, Any]
"""What was measured of a type: see type_speed.py, with decoding by instruction set."""


def token_bytes(model: Path) -> float:
    """What a token reads: of the experts those that are chosen, of the embeddings one row."""
    with GGUFFile.open(model) as file:
        chosen = file.get("qwen3moe.expert_used_count", int)
        share = chosen / file.get("qwen3moe.expert_count", int)
        sizes = {name: tensor.n_bytes for name, tensor in file.tensors.items()}
    return sum(
        size * (share if name.endswith("_exps.weight") else 1.0)
        for name, size in sizes.items()
        if name != "token_embd.weight"
    )


def measured(model: Path, prefix: str, *options: str) -> Found:
    """What type_speed.py tells in its last line."""
    command = [*shlex.split(prefix), sys.executable, str(FOLDER / "type_speed.py"), str(model)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_type(type: str, args: argparse.Namespace, folder: Path) -> Found:
    """Write the model of a type, measure it beside its peers and with each instruction set."""
    model = folder / f"{type}.gguf"
    command = [sys.executable, str(FOLDER / "synthetic.py"), str(args.vocabulary), str(model)]
    command += ["--type", type, "--layers", str(args.layers)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    repeats = ["--repeats", str(args.repeats)]
    peers = [("--llama-bench", args.llama_bench), ("--ik", args.ik)]
    given = [word for option, path in peers if path for word in (option, str(path))]
    started = time.monotonic()
    found = measured(model, args.prefix, *repeats, *given)
    isas = [isa for isa in ISAS if isa in args.isas and isa != found["isa"]]
    decoded = {isa: measured(model, args.prefix, *repeats, "--isa", isa) for isa in isas}
    found["decoded"] = {
        isa: {"tps": run["results"]["tg64"]["moestream_tps"], "read_gb_s": run["read_gb_s"]}
        for isa, run in {found["isa"]: found, **decoded}.items()
    }
    found["took_s"] = round(time.monotonic() - started, 1)
    found["token_bytes"] = token_bytes(model)
    model.unlink()
    return found


def compared(found: Found, work: str) -> list[str]:
    """Cells of a speed, and of how many times the peers' it is."""
    result = found["results"][work]
    cells = [f"{result['moestream_tps']:.3g}"]
    for peer in ("llama_cpp", "ik_llama_cpp"):
        tps, ratio = result.get(f"{peer}_tps"), result.get(f"{peer}_ratio")
        cells.append("-" if tps is None else f"{tps:.3g} ({ratio:.2f})")
    return cells


def reached(found: Found) -> str:
    """Bytes a second of decoding, of those of the memory, with each instruction set."""
    return ", ".join(
        f"{isa} {run['tps'] * found['token_bytes'] / 1e9:.1f}/{run['read_gb_s']:.0f}"
        for isa, run in found["decoded"].items()
    )


def table(results: dict[str, Found]) -> str:
    """All types that were measured, in Markdown."""
    rows = [
        [type, *compared(found, "pp512"), *compared(found, "tg64"), reached(found)]
        for type, found in results.items()
    ]
    lines = [HEAD, f"|{'---|' * (HEAD.count('|') - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def read_results(path: Path) -> dict[str, Found]:
    """What earlier runs left."""
    results: dict[str, Found] = json.loads(path.read_text()) if path.exists() else {}
    return results


def put_table(page: Path, text: str) -> None:
    """Replace the table of the page's section, or put one below its words."""
    old = page.read_text(encoding="utf-8")
    pattern = rf"^{re.escape(TITLE)}\n(?P<words>(?:(?![#|]).*\n)*)(?:\|.*\n)*"
    section = re.search(pattern, old, re.MULTILINE)
    if section is None:
        raise SystemExit(f"{page} has no section {TITLE!r}: write one where the table shall stand.")
    after = old[section.end() :].lstrip("\n")
    new = f"{TITLE}\n\n{section['words'].strip()}\n\n{text}" + (f"\n{after}" if after else "")
    with replacing(page) as file:
        file.write(old[: section.start()] + new)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", nargs="?", type=Path, help="GGUF file with a vocabulary")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--results", type=Path, default=Path("type_speeds.json"))
    parser.add_argument("--page", type=Path, help="write the table there")
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--ik", type=Path, help="ik_llama.cpp's llama-bench")
    parser.add_argument(
        "--isas", nargs="*", default=_native.available_isas(), help="to decode with"
    )
    parser.add_argument("--prefix", default="", help="command before each measurement's")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Measure the types that have no result yet, and print the table of all."""
    args = parse()
    results = read_results(args.results)
    with tempfile.TemporaryDirectory() as folder:
        for type in args.types:
            if type in results:
                continue
            results[type] = measure_type(type, args, Path(folder))
            print(f"{type}: measured in {results[type]['took_s']} s", file=sys.stderr)
            with replacing(args.results) as file:
                json.dump(results, file, indent=1)
    print(table(results), end="")
    if args.page:
        put_table(args.page, table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
