"""Whole models with experts of one type, beside llama.cpp and ik_llama.cpp: a table, row by row.

The file of each type is Qwen3-30B-A3B's shape with fewer layers (synthetic.py), measured by peer.py
and removed. A token reads all that is dense, and the experts that it chooses: how many bytes a
second that is with each instruction set, of those that the memory gives in the same run, is told as
well. A peer that does not know a type has a dash.

    python scripts/bench/type_speeds.py vocabulary.gguf IQ2_XXS IQ3_S --llama-bench PATH --ik PATH
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from moestream.gguf import GGUFFile

FOLDER = Path(__file__).parent
HEAD = "| experts | pp512 | llama.cpp | ik | tg64 | llama.cpp | ik | of the memory's GB/s |"


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


def measured(model: Path, repeats: int, *options: str, isa: str | None = None) -> dict[str, Any]:
    """What peer.py finds."""
    command = [sys.executable, str(FOLDER / "peer.py"), str(model), "--generate", "64"]
    command += ["--repeats", str(repeats), *options]
    env = {**os.environ, "MOESTREAM_ISA": isa} if isa else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def beside_peers(model: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure beside all peers, or, if one does not know the type, beside the first alone."""
    peers = [["--llama-bench", args.llama_bench], ["--ik", args.ik]]
    given = [[option, str(path)] for option, path in peers if path]
    try:
        return measured(model, args.repeats, *(word for pair in given for word in pair))
    except RuntimeError as error:
        print(f"{model.stem}: {str(error).splitlines()[0]}", file=sys.stderr)
        return measured(model, args.repeats, *given[0])


def compared(found: dict[str, Any], work: str) -> list[str]:
    """Cells of a speed, and of how many times the peers' it is."""
    result = found["results"][work]
    cells = [f"{result['moestream_tps']:.3g}"]
    for peer in ("llama_cpp", "ik_llama_cpp"):
        tps, ratio = result.get(f"{peer}_tps"), result.get(f"{peer}_ratio")
        cells.append("-" if tps is None else f"{tps:.3g} ({ratio:.2f})")
    return cells


def reached(isa: str, found: dict[str, Any], bytes_of_token: float) -> str:
    """Bytes a second of decoding, and of the memory's."""
    gb_s = found["results"]["tg64"]["moestream_tps"] * bytes_of_token / 1e9
    return f"{isa} {gb_s:.1f}/{found['read_gb_s']:.0f}"


def main() -> None:
    """Parse the command line; write, measure and remove a file for each type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path, help="GGUF file whose vocabulary to copy")
    parser.add_argument("types", nargs="+")
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--ik", type=Path, help="ik_llama.cpp's llama-bench")
    parser.add_argument("--isas", nargs="*", default=[], help="others to decode with: avx2 ...")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for type in args.types:
            model = Path(folder, f"{type}.gguf")
            command = [sys.executable, str(FOLDER / "synthetic.py"), str(args.vocabulary)]
            command += [str(model), "--type", type, "--layers", str(args.layers)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            runs = [beside_peers(model, args)]
            runs += [measured(model, args.repeats, "--prompt", "0", isa=isa) for isa in args.isas]
            size = token_bytes(model)
            cells = [type, *compared(runs[0], "pp512"), *compared(runs[0], "tg64")]
            isas = [runs[0]["isa"], *args.isas]
            cells.append(", ".join(reached(*run, size) for run in zip(isas, runs, strict=True)))
            print(f"| {' | '.join(cells)} |", flush=True)
            results.append(runs)
            model.unlink()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
