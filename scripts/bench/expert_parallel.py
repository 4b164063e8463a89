"""How far sharing by layers goes, and from which link on sharing each layer's experts would pay.

python scripts/bench/expert_parallel.py [--layers 48] [--row 2048] [--token-ms 9] [--dense 0.35]
    [--hop-ms 0.45]

Formulas, no measurement: what they take is measured elsewhere (``ranks.py``, ``moestream bench``).
A token takes ``token-ms`` on one machine that has all in memory, the part ``dense`` of it not in
experts. By layers, n machines take that and n hops. By experts, every machine computes all that is
dense and its share of the experts, and each layer waits for one exchange, a round trip. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json

LINKS = {"1G, 0.2 ms": (0.2, 1), "10G, 0.05 ms": (0.05, 10), "40G, 0.01 ms": (0.01, 40)}
"""Milliseconds one way, Gbit/s."""
MACHINES = (2, 4, 16)


def hop_ms(row: int, delay_ms: float, gbit: float, own_ms: float = 0) -> float:
    """One way of one token's row in float32, and what the program takes besides."""
    return delay_ms + 4 * row * 8 / (gbit * 1e6) + own_ms


def by_layers_ms(token_ms: float, machines: int, hop: float) -> float:
    """One sequence: each machine works in its turn."""
    return token_ms + machines * hop


def by_experts_ms(token_ms: float, dense: float, machines: int, layers: int, hop: float) -> float:
    """One sequence: the machines work on each layer together, as evenly as never happens."""
    return token_ms * (dense + (1 - dense) / machines) + layers * 2 * hop


def main() -> None:
    """Write a table, a line a link and number of machines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--row", type=int, default=2048)
    parser.add_argument("--token-ms", type=float, default=9)
    parser.add_argument("--dense", type=float, default=0.35)
    parser.add_argument("--hop-ms", type=float, default=0.45, help="of the program, one way")
    args = parser.parse_args()
    rows = []
    for link, (delay_ms, gbit) in LINKS.items():
        hop = hop_ms(args.row, delay_ms, gbit, args.hop_ms)
        for machines in MACHINES:
            layers = by_layers_ms(args.token_ms, machines, hop)
            experts = by_experts_ms(args.token_ms, args.dense, machines, args.layers, hop)
            saved = args.token_ms * (1 - args.dense) * (1 - 1 / machines)
            pays = (saved + machines * hop) / (2 * args.layers)
            rows.append(
                {
                    "link": link,
                    "machines": machines,
                    "by_layers_ms": round(layers, 2),
                    "by_experts_ms": round(experts, 2),
                    "many_by_layers_tps": round(1e3 / max(args.token_ms / machines, hop), 1),
                    "experts_pay_below_hop_ms": round(pays, 3),
                }
            )
            print(rows[-1])
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
