"""How much a profile should count for: hits of the first tokens, by replaying real routing.

Each language's text, which the demo's recipe never saw, is run once. Its profile is made of the
first part; the second is replayed through the ``decay`` policy from an empty cache, and from ones
begun with the right profile and with a wrong one, counting for more or fewer tokens. Exact: no
times are taken. The last line is JSON.

    python scripts/bench/profile_seed.py --model demo.gguf
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream import Engine
from moestream.policies import Decay
from moestream.profiles import Fingerprint, Profile, UseCounter
from moestream.streaming.store import expert_sizes
from moestream.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from bench.profiles import LANGUAGES, WRONG

COUNTED = (16, 64, 256)
STEP = 120
"""Tokens between the places where a replay begins."""


class Seeded(Decay):
    """``Decay`` whose seed counts for a number of tokens of our own."""

    def __init__(self, sizes: Sequence[int], budget_bytes: int, tokens: float) -> None:
        super().__init__(sizes, budget_bytes)
        self._tokens = tokens

    def _seed_tokens(self) -> float:
        return self._tokens


def routing(engine: Engine, text: str) -> NDArray[np.int32]:
    """Experts of every token and layer: (T, L, k)."""
    rows: dict[int, list[NDArray[np.int32]]] = {}
    tokens = Tokenizer.from_gguf(engine.file).encode(text)
    engine.session().forward(
        tokens, on_route=lambda event: rows.setdefault(event.layer, []).append(event.expert_ids)
    )
    return np.stack([np.concatenate(rows[layer]) for layer in sorted(rows)], 1)


def profile_of(engine: Engine, routed: NDArray[np.int32], half_life: float) -> Profile:
    """What was routed, as a profile."""
    layers = list(expert_sizes(engine.file))
    counter = UseCounter(layers, engine.config.num_experts, half_life)
    for row, layer in enumerate(layers):
        counter.add(layer, routed[:, row])
    return counter.profile("", "", Fingerprint.of(engine.file), {})


def replay(routed: NDArray[np.int32], policy: Decay, num_experts: int) -> list[float]:
    """Share of hits in the first of ``COUNTED`` tokens."""
    hits = []
    for token, layers in enumerate(routed.tolist()):
        missing = sum(
            len(policy.access([num_experts * layer + expert for expert in ids], token)[0])
            for layer, ids in enumerate(layers)
        )
        hits.append(1 - missing / routed[0].size)
    return [float(np.mean(hits[:n])) for n in COUNTED]


def main() -> None:
    """Run the texts, then replay them in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shares", default="0.15,0.25,0.45", help="of experts in memory")
    parser.add_argument("--seeds", default="1,4,8,16,46", help="tokens that a profile counts for")
    parser.add_argument("--half-lives", default="512", help="of the profile, in tokens")
    args = parser.parse_args()
    shares, seeds, half_lives = (
        [float(x) for x in text.split(",")] for text in (args.shares, args.seeds, args.half_lives)
    )
    known, later = {}, {}
    with Engine.open(args.model, context_length=4096) as engine:
        for language in LANGUAGES:
            text, passages = heldout.parts(language)
            known[language] = routing(engine, text)
            later[language] = routing(engine, "".join(passages))
        num_experts = engine.config.num_experts
        rates = {
            (language, half_life): profile_of(engine, routed, half_life).key_rates().tolist()
            for language, routed in known.items()
            for half_life in half_lives
        }
    num_keys = num_experts * engine.config.num_layers
    rows: list[dict[str, Any]] = []
    for language in LANGUAGES:
        starts = range(0, len(later[language]) - COUNTED[-1], STEP)
        ways: list[tuple[str, float, float, Any]] = [("cold", 0.0, 0.0, None)]
        for way, origin in (("right", language), ("wrong", WRONG[language])):
            ways += [
                (way, tokens, half_life, rates[origin, half_life])
                for half_life in half_lives
                for tokens in seeds
            ]
        for share in shares:
            for way, tokens, half_life, seed in ways:
                found = []
                for start in starts:
                    policy = Seeded([1] * num_keys, int(share * num_keys), tokens)
                    if seed is not None:
                        policy.seed(seed)
                    passage = later[language][start : start + COUNTED[-1]]
                    found.append(replay(passage, policy, num_experts))
                hits = np.mean(found, axis=0).tolist()
                row = {"language": language, "share": share, "way": way, "tokens": tokens}
                rows.append(row | {"half_life": half_life, "hit_rates": hits})
                told = "  ".join(f"{hit:6.1%}" for hit in hits)
                print(f"{language:>5} {share:.0%} {way:>5} {tokens:3g} {half_life:5g}  {told}")
    print(json.dumps({"model": args.model.name, "counted": COUNTED, "rows": rows}))


if __name__ == "__main__":
    main()
