"""The words of docs/policies.md that stand between its tables."""

HEAD = """# Policies: four published systems, measured

Made by `scripts/docs/policies.py` from data that it makes; do not edit it by hand.

    python scripts/docs/policies.py qwen3-30b-a3b.route.csv.gz gemma-4-26b-a4b.route.csv.gz \\
        --live bench.json --shift shift.json

Which experts should stay in memory? This page compares eight policies and four published
systems. Two results matter most. On average, none beats the default, `decay`, by more than half a
point. And keeping parts of experts, or reading twice as many guesses, does not pay on a disk.

The first tables are replays (`moestream simulate`): how often an expert is in memory when its layer
asks. A hit rate is not a speed; the speeds are under "Live, under caps". A hit means that an expert
of a layer's routed set was in memory. Prefill warms the cache and is not counted.
"""

PAPERS = """## What the papers claim, and what is seen here

| system | here | the paper reports | seen here |
|---|---|---|---|
| LFU for LRU (arXiv 2511.05814) | `--strategy lfu` | a strong improvement over LRU | {lfu} |
| Fate (arXiv 2502.12224) | `--strategy fate` | prefetch \
accuracy 97 %, hit rate 99 % with the cache, decoding up to 4.1 times as fast as loading on demand \
| {fate} |
| MoEpic (arXiv 2509.08342) | `--strategy moepic` | latency \
lower by 38 to 66 %, half of the GPU memory | {moepic} |
| usage-aware caching | `--profile NAME`, and the default, `decay` | (a request, no figures) \
| {decay} |

Why they differ:

- **LFU** counts for ever. That is right within one workload. After a shift it keeps what nobody
  uses any more (the table "Italian, then code"). Traces of one workload do not show it.
- **Fate** counts an expert as hit if it was in memory *or prefetched in time*, and moves experts
  from main memory to a GPU, which is many times faster than a disk. Counted so, the figures here
  are much the same (the table "Guesses"). But a guess is not free on a disk: twice as many guesses
  read several times as much for nothing. It keeps its first layers whole because guesses are worst
  there; here only one layer is bad (layer 1), and the others miss the room. Its experts in 2 bits
  are left out: they change the output, and ours is exact.
- **MoEpic** keeps a share of more experts. In the same memory that reads more bytes, not fewer:
  the second half of one expert is given up for the first half of another, which is used less. It
  pays where the missing half is read while something else is computed. Over a bus to a GPU that may
  be most of it; from a disk it is hardly any. So the configurator (`--stream split=auto`) chooses
  whole experts, or nearly whole ones where a small model computes for as long as it reads. It takes
  an expert's uses from a profile, or typical ones if there is none; the paper's always has one.
  Moving memory between layers during a run is ours.
- **Order in prefill**: Fate loads a prompt's experts by how many tokens chose them, so that the
  rarest can be loaded in 2 bits. Ours are read in that order, in full. All of them are needed, so
  the order does not matter: on the demo model's prompts of 60 and 350 tokens, 0.75 and 0.76 s, 2.46
  and 2.52 s.
"""


TRIED = """
## Tried, and did not help enough

By replay of all traces at 5 to 50 %, as in the table above. Points over `decay`, mean (from, to),
and the median share of the gap between LRU and belady that was closed.

| idea | over decay | gap closed |
|---|---|---|
| a half-life of 24, 16 or 12 tokens for 32 | +0.2, +0.2, +0.0 (-4.3 to +2.5) | 19, 21, 22 % |
| `blend` with a half-life of 24 | +0.5 (-5.6 to +4.3) | 24 % |
| two half-lives, 6 and 96, half each | +0.3 (-4.0 to +2.9) | 20 % |
| four half-lives, 1.5 to 96, alike | +0.2 (-8.4 to +3.5) | 23 % |
| a fifth by a half-life of 1.5, the rest by 24 | +0.7 (-5.2 to +3.6) | 24 % |
| the same, ranked by the expected next use, the layer's place in the pass included | \
+1.0 (-4.2 to +4.0) | 26 % |
| a half-life of 24 alone, ranked so | +0.8 (-0.0 to +2.0) | 22 % |
| the chance of a use from a table of recency and three rates, learned from the other traces, \
ranked so | +0.5 (-5.0 to +3.2) | 25 % |

The learned table sees all that rates and recency can tell, with no form imposed, and closes a
quarter of the gap. So do the best of the simple rules. The rest needs knowledge of the future, and
gates guess only one layer ahead, while what is dropped is needed tokens later.
"""
