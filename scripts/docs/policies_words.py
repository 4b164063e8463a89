"""The words of docs/policies.md that stand between its tables."""

HEAD = """# Policies: four published systems, measured

Made by `scripts/docs/policies.py` from data that it makes; do not edit it by hand.

    python scripts/docs/policies.py qwen3-30b-a3b.route.csv.gz gemma-4-26b-a4b.route.csv.gz \\
        --live bench.json --shift shift.json

What follows are replays (`moestream simulate`): how often an expert is in memory when its layer
asks, and what is read. They do not say how fast that is, and a hit rate is not a speed. The unit of
account is a layer's routed set; prefill warms the cache and is not counted.
"""

PAPERS = """## What the papers claim, and what is seen here

| system | here | the paper reports | seen here |
|---|---|---|---|
| LFU for LRU (arXiv 2511.05814) | `--policy lfu` | a strong improvement over LRU | {lfu} |
| Fate (arXiv 2502.12224) | `--policy arc --layer-budget shallow --prefetch-mass P` | prefetch \
accuracy 97 %, hit rate 99 % with the cache, decoding up to 4.1 times as fast as loading on demand \
| {fate} |
| MoEpic (arXiv 2509.08342) | `--policy lcp --layer-budget adaptive --split auto` | latency \
lower by 38 to 66 %, half of the GPU memory | {moepic} |
| usage-aware caching | `--profile NAME`, and the default, `decay` | (a request, no figures) \
| {decay} |

Why they differ:

- **LFU** counts for ever. Within one workload that is right; after a shift it holds what nobody
  uses any more (the table "Italian, then code"). Traces of one workload do not show that.
- **Fate** counts an expert as hit if it was in memory *or prefetched in time*, and moves experts
  from main memory to a GPU, which is many times faster than a disk. Counted so, the figures here
  are much the same (the table "Guesses"). But a guess is not free on a disk: widening guesses to
  twice k reads several times as much in vain. Its first layers are held wholly because guesses are
  poorest there; here only the first of all is poor (layer 1), and the room is missed in the others.
  Its experts in 2 bits are left out: they change the output, and ours is exact.
- **MoEpic** keeps a share of more experts. In the same memory that reads more bytes, not fewer:
  half of a second expert saves half a read as often as that one is used, more rarely than the
  first. It pays where the missing half is read while something is computed: over a bus to a GPU
  that may be most of it, at the speed of a disk it is hardly any. So the configurator finds
  that whole experts wait least, or nearly whole ones where a small model's layers compute for as
  long as they read, and `--split auto` keeps that. It knows of an expert's uses what a profile
  says, and takes typical ones without; the paper's is given a profile. That
  budget moves between the layers as a run goes on is ours.
- **Order in prefill**: Fate loads a prompt's experts by the number of tokens that chose them, so
  that the rarest can be loaded in 2 bits. Ours are read and computed in that order, in full. All
  of them are needed, and the disk is busy in any order: on the demo model's prompts of 60 and 350
  tokens it made no difference beyond the noise (0.75 and 0.76 s, 2.46 and 2.52 s), nor any cost.
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
quarter of the gap. So do the best of the simple rules: what is left needs the future, or another
kind of knowledge. Gates guess one layer ahead, and what is dropped is needed tokens later.
"""
