"""Write the tables of docs/machines.md that are made on paper: how far layers go, and experts.

python scripts/docs/machines.py [--check] [--token-ms 9] [--dense 0.35] [--layers 48] [--row 2048]

What the formulas take is measured elsewhere: a token's time on one machine that has all in memory,
the part of it that is not in experts (``moestream bench``), and a hop (``bench/ranks.py``). Links
and the formula of a pipeline are ``plan --machines``'s. Beside the formula stands a simulation of
events: each machine takes as long as it happens to (the spread that ``plan`` goes by), and a
machine's next pass may have to wait for the one before. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from itertools import pairwise
from pathlib import Path

from moestream.forecast.arithmetic import SPREAD
from moestream.forecast.pipeline import link_of, rate, row_bytes, token_s

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from docs.marked import put_table

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
BEGIN, END = "<!-- made by scripts/docs/machines.py -->", "<!-- until here -->"
LINKS = ("1G", "10G", "40G")
MACHINES = (2, 4, 16)
BATCHES = {1: 1.0, 2: 1.5, 4: 2.7, 8: 3.5, 16: 5.3}
"""Times as long as one token's a pass of so many takes. Measured: Qwen3 shape, 11 to 58 ms."""
CONVERSATIONS = 16
PASSES = 4000


def by_experts_ms(token_ms: float, dense: float, machines: int, layers: int, hop: float) -> float:
    """One conversation: the machines work on each layer together, as evenly as never happens."""
    return token_ms * (dense + (1 - dense) / machines) + layers * 2 * hop


def experts_pay_below_ms(
    token_ms: float, dense: float, machines: int, layers: int, hop: float
) -> float:
    """The hop from which on sharing experts is faster than layers with hops of ``hop``."""
    saved = token_ms * (1 - dense) * (1 - 1 / machines)
    return (saved + machines * hop) / (2 * layers)


def batch_factor(sequences: float) -> float:
    """Times as long as a pass of one, on the line between those measured."""
    known = sorted(BATCHES)
    if sequences <= known[0]:
        return BATCHES[known[0]]
    for low, high in pairwise(known):
        if sequences <= high:
            part = (sequences - low) / (high - low)
            return BATCHES[low] + part * (BATCHES[high] - BATCHES[low])
    return BATCHES[known[-1]] * sequences / known[-1]


def many_tps(token_ms: float, machines: int, hop: float) -> float:
    """Tokens a second of all conversations, cut into a pass for each machine, by the formula."""
    passes = min(machines, CONVERSATIONS)
    size = CONVERSATIONS / passes
    seconds = [token_ms / 1e3 * batch_factor(size) / machines] * machines
    return size * rate(seconds, hop / 1e3, passes)


def simulated_tps(token_ms: float, machines: int, hop: float, conversations: int) -> float:
    """The same as events: every pass waits for its machine, and takes as long as it happens to."""
    chance = random.Random(0)
    passes = min(machines, conversations)
    size = conversations / passes
    each = token_ms * batch_factor(size) / machines
    free = [0.0] * machines
    back = [0.0] * passes
    """When each pass is at the first machine again."""
    for number in range(PASSES):
        at = back[number % passes]
        for machine in range(machines):
            took = each * chance.uniform(1 - SPREAD, 1 + SPREAD)
            at = free[machine] = max(at, free[machine]) + took
            at += hop if machines > 1 else 0
        back[number % passes] = at
    return 1e3 * PASSES * size / max(back)


def rows_of(args: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each link and number of machines."""
    found: list[dict[str, object]] = []
    for name in LINKS:
        link = link_of(name)
        hop = 1e3 * link.hop_s(row_bytes(args.row))
        for machines in MACHINES:
            given = (args.token_ms, args.dense, machines, args.layers, hop)
            parts = [args.token_ms / machines] * machines
            found.append(
                {
                    "link": f"{name[:-1]} Gbit/s, {1e3 * link.latency_s:g} ms",
                    "machines": machines,
                    "hop_ms": round(hop, 2),
                    "layers_ms": round(token_s(parts, hop), 1),
                    "layers_simulated_ms": round(
                        1e3 / simulated_tps(args.token_ms, machines, hop, 1), 1
                    ),
                    "many_tps": round(many_tps(args.token_ms, machines, hop)),
                    "many_simulated_tps": round(
                        simulated_tps(args.token_ms, machines, hop, CONVERSATIONS)
                    ),
                    "experts_ms": round(by_experts_ms(*given), 1),
                    "experts_pay_below_ms": round(experts_pay_below_ms(*given), 3),
                }
            )
    return found


HEADS = {
    "link": "link, one way",
    "machines": "machines",
    "hop_ms": "a hop, ms",
    "layers_ms": "token by layers, ms",
    "layers_simulated_ms": "simulated",
    "many_tps": f"{CONVERSATIONS} conversations, tok/s",
    "many_simulated_tps": "simulated",
    "experts_ms": "token by experts, ms",
    "experts_pay_below_ms": "experts pay below a hop of, ms",
}


def main() -> None:
    """Write the page anew, or with ``--check`` see that it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--row", type=int, default=2048)
    parser.add_argument("--token-ms", type=float, default=9)
    parser.add_argument("--dense", type=float, default=0.35)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rows = rows_of(args)
    page = PAGE.read_text(encoding="utf-8")
    cells = [[str(row[key]) for key in HEADS] for row in rows]
    made = put_table(page, BEGIN, END, [HEADS.values(), *cells])
    if args.check:
        sys.exit("docs/machines.md is not current: run this" if made != page else 0)
    PAGE.write_text(made, encoding="utf-8")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
