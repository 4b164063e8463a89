"""Cache policies: small classes that decide which experts stay in memory.

Numbers in, decisions out: the offline simulator and the live residency manager use the same ones.
``POLICIES`` are those that need no knowledge of the future; ``Belady`` is the bound on them.
"""

from moestream.policies.ageing import LCP, Blend, Decay
from moestream.policies.arc import ARC
from moestream.policies.base import SEED_TOKENS, Decision, Policy, PolicyFactory, hottest
from moestream.policies.belady import Belady, next_uses
from moestream.policies.layered import Adaptive, Layered
from moestream.policies.recency import LFRU, LRU, Random
from moestream.policies.scored import LFU

__all__ = [
    "ARC",
    "LCP",
    "LFRU",
    "LFU",
    "LRU",
    "POLICIES",
    "SEED_TOKENS",
    "Adaptive",
    "Belady",
    "Blend",
    "Decay",
    "Decision",
    "Layered",
    "Policy",
    "PolicyFactory",
    "Random",
    "hottest",
    "next_uses",
]

POLICIES: dict[str, PolicyFactory] = {
    "lru": LRU,
    "lfu": LFU,
    "decay": Decay,
    "blend": Blend,
    "lcp": LCP,
    "lfru": LFRU,
    "arc": ARC,
    "random": Random,
}
