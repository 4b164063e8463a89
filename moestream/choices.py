"""What can be chosen, each name and default once, for layers that may not import one another.

Imports nothing, so that ``--help`` answers at once; what a name stands for is told where it is
carried out.
"""

from typing import Literal, get_args

Backend = Literal["auto", "cpu", "mlx", "reference"]
BACKENDS: tuple[str, ...] = get_args(Backend)

KVType = Literal["f16", "f32", "q8_0", "q4_0"]
"""How keys and values are stored: as they are multiplied, or in blocks of 32 in half the memory."""
KV_TYPES: tuple[KVType, ...] = get_args(KVType)

DraftKind = Literal["none", "ngram", "mtp", "auto"]
"""What guesses tokens ahead: nothing, the text so far, the model's own layer for that; or the text
where it pays."""
DRAFTS: tuple[DraftKind, ...] = get_args(DraftKind)

ReadMethod = Literal["madvise", "pread", "direct"]
"""Into the mapped file; into slots, through the page cache; into slots, past it."""
READ_METHODS: tuple[ReadMethod, ...] = get_args(ReadMethod)

PinMethod = Literal["copy", "mlock", "none"]
PIN_METHODS: tuple[PinMethod, ...] = get_args(PinMethod)

LayerBudget = Literal["global", "uniform", "shallow", "adaptive"]
"""One cache for all layers; one a layer: of equal size, the first layers whole, or moved about."""
LAYER_BUDGETS: tuple[LayerBudget, ...] = get_args(LayerBudget)

POLICIES = ("decay", "blend", "lru", "lfu", "lcp", "lfru", "arc", "random")
"""Cache policies that need no knowledge of the future."""
HALF_LIFE = 32.0
"""Tokens in which a use fades by half: near the best on all traces, which differ little."""
FADING = ("decay", "blend")
"""The policies that have a half-life."""
BOUNDS = ("belady", "belady-bypass")
"""Those that do, for the simulator."""

ReasoningStyle = Literal["show", "dim", "hide"]
REASONING_STYLES: tuple[ReasoningStyle, ...] = get_args(ReasoningStyle)
