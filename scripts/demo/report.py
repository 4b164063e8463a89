"""What splitting the dense model into experts cost, and how its router behaves.

Prints, on text that the recipe never saw: loss of the dense source and of the demo model a
domain; the share of routed experts that the previous layer's residual stream foretells, layer by
layer; and how much of each domain the hottest experts of one domain cover. Run it as
``python scripts/demo/report.py``; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moestream.catalog import resolve
from moestream.demo.source import fetch_source
from moestream.engine.engine import Engine
from moestream.folders import cache_dir
from moestream.layers.moe import MoE, RoutingEvent
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from demo.corpus import DOMAINS

WINDOW = 512
HOTTEST = 8


class RouterWatch:
    """Counts what one domain's tokens are routed to, and how well it could be foretold."""

    def __init__(self, engine: Engine) -> None:
        self.layers = engine.model.layers
        self.counts = np.zeros((len(self.layers), engine.config.num_experts), np.int64)
        self.recall: dict[int, list[float]] = defaultdict(list)
        self._before: RoutingEvent | None = None

    def __call__(self, event: RoutingEvent) -> None:
        """Compare with the prediction made from the layer before; count the experts."""
        np.add.at(self.counts[event.layer], np.asarray(event.expert_ids).ravel(), 1)
        before, ffn = self._before, self.layers[event.layer].ffn
        if before is not None and before.layer == event.layer - 1 and isinstance(ffn, MoE):
            guessed, _ = ffn.norm_and_route(before.x)
            found = (np.asarray(event.expert_ids)[:, :, None] == guessed[:, None, :]).any(axis=2)
            self.recall[event.layer] += found.mean(axis=1).tolist()
        self._before = event


def mean_loss(engine: Engine, ids: list[int], watch: RouterWatch | None = None) -> float:
    """Mean cross entropy in nats, in windows that each start from an empty context."""
    losses: list[float] = []
    for start in range(0, len(ids) - 1, WINDOW):
        window = ids[start : start + WINDOW]
        logits = engine.session().forward(window, on_route=watch)[:-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[np.arange(len(window) - 1), window[1:]]
        losses += (np.log(np.exp(logits).sum(axis=1)) - picked).tolist()
    return float(np.mean(losses))


def coverage(counts: NDArray[np.int64], of: NDArray[np.int64]) -> float:
    """Share of the routed experts `counts` (L, X) that are among the hottest by `of`."""
    hottest = np.argsort(-of, axis=1, kind="stable")[:, :HOTTEST]
    return float(np.take_along_axis(counts, hottest, axis=1).sum() / counts.sum())


def main() -> None:
    """Run both models over the held-out texts and print three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo", help="name or path of the split model")
    parser.add_argument("--source", type=Path, help="the dense source; downloaded if not given")
    parser.add_argument("--texts", type=Path, default=heldout.FOLDER, help="folder of DOMAIN.txt")
    arguments = parser.parse_args()
    source = arguments.source or fetch_source(cache_dir() / "sources")
    losses: dict[str, dict[str, float]] = {}
    watches: dict[str, RouterWatch] = {}
    with Engine.open(source) as dense, Engine.open(resolve(arguments.model)) as split:
        tokenizer = Tokenizer.from_gguf(split.file)
        print(f"{'domain':8}{'tokens':>8}{'dense':>9}{'split':>9}{'more':>9}")
        for domain in DOMAINS:
            ids = tokenizer.encode((arguments.texts / f"{domain}.txt").read_text(encoding="utf-8"))
            watches[domain] = RouterWatch(split)
            pair = mean_loss(dense, ids), mean_loss(split, ids, watches[domain])
            losses[domain] = {"dense": pair[0], "split": pair[1], "tokens": len(ids)}
            figures = f"{pair[0]:9.3f}{pair[1]:9.3f}{pair[1] - pair[0]:+9.3f}"
            print(f"{domain:8}{len(ids):8}{figures}", flush=True)
    recall = print_recall(watches)
    table = print_coverage(watches)
    print(json.dumps({"loss": losses, "recall": recall, "coverage": table}))


def print_recall(watches: dict[str, RouterWatch]) -> dict[int, float]:
    """Print and return next-gate recall@2 a layer, over all domains."""
    layers = sorted(next(iter(watches.values())).recall)
    recall = {
        layer: float(np.mean([hit for watch in watches.values() for hit in watch.recall[layer]]))
        for layer in layers
    }
    print("\nnext-gate recall@2 by layer")
    for start in range(0, len(layers), 10):
        part = layers[start : start + 10]
        print("  ".join(f"{layer:2}: {recall[layer]:.2f}" for layer in part))
    print(f"mean {np.mean(list(recall.values())):.3f}")
    return recall


def print_coverage(watches: dict[str, RouterWatch]) -> dict[str, dict[str, float]]:
    """Print and return what the hottest experts of each domain cover of all domains."""
    print(f"\ncoverage by the {HOTTEST} hottest experts a layer of the domain in front")
    print(f"{'':8}" + "".join(f"{domain:>8}" for domain in DOMAINS))
    table = {
        hot: {domain: coverage(watches[domain].counts, watches[hot].counts) for domain in DOMAINS}
        for hot in DOMAINS
    }
    for hot, row in table.items():
        print(f"{hot:8}" + "".join(f"{share:8.1%}" for share in row.values()))
    return table


if __name__ == "__main__":
    main()
