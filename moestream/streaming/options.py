"""How experts are streamed: what may be chosen, and the published systems that are a choice of all.

Owns names, bounds and defaults. Imports no NumPy; what a choice does is told where it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from moestream.choices import (
    FADING,
    HALF_LIFE,
    LAYER_BUDGETS,
    PIN_METHODS,
    POLICIES,
    READ_METHODS,
    LayerBudget,
    PinMethod,
    ReadMethod,
)
from moestream.declare import Declared, check, declared, option
from moestream.errors import BudgetError

MOST_GUESSES = 2
"""Times as many experts as a token routes to may be guessed for a layer, where a guess is unsure.

Each costs room for two: with more, what is kept shrinks by more than guessing better brings.
"""
_LEAST_SPLIT = 0.01


@dataclass(frozen=True)
class StreamingOptions:
    """What a user may choose. ``auto`` is decided when the file is opened.

    Raises:
        BudgetError: a value that an option does not take.
    """

    io: ReadMethod | Literal["auto"] = option(
        "auto",
        "Read into the mapped file, into own memory, or there past the page cache; auto measures.",
        choices=("auto", *READ_METHODS),
    )
    prefetch: bool = option(True, "Read the experts that the next layer will probably want.")
    policy: str = option("decay", "Which experts stay in memory.", choices=POLICIES)
    half_life: float = option(
        HALF_LIFE,
        f"Tokens in which a use loses half its weight; for {' and '.join(FADING)}.",
        least=0.01,
        most=1e9,
        metavar="N",
    )
    window: int | None = option(
        None,
        "Forget uses more than N tokens ago; for decay.",
        kind=int,
        least=1,
        words={"none": None},
        default_told="none",
        metavar="N",
    )
    layer_budget: LayerBudget = option(
        "global",
        "One cache for all layers; one a layer, of equal size; the first layers whole, the rest "
        "equal; or moved to the layers where it hits most.",
        choices=LAYER_BUDGETS,
    )
    pin: PinMethod | Literal["auto"] = option(
        "auto",
        "Hold hot experts by locking the mapped file (mlock, with io madvise), as copies (copy, "
        "with io pread or direct), or not.",
        choices=("auto", *PIN_METHODS),
    )
    prefetch_layers: int = option(
        1, "How many layers ahead to predict.", least=1, most=16, metavar="N"
    )
    prefetch_mass: float | None = option(
        None,
        "Where the router is unsure, read more than a token uses, twice as many at most: until "
        "their probabilities reach P.",
        kind=float,
        least=0,
        above=True,
        most=1,
        words={"none": None},
        default_told="none",
        metavar="P",
    )
    split: float | Literal["auto"] = option(
        1.0,
        "Keep only this share of an expert, so that more have a part in memory, and read the rest "
        "at each use; auto takes what should wait least on this disk.",
        least=_LEAST_SPLIT,
        most=1,
        words={"auto": "auto"},
        metavar="auto|SHARE",
    )

    def __post_init__(self) -> None:
        try:
            check(self)
        except ValueError as error:
            raise BudgetError(str(error)) from None

    @property
    def policy_settings(self) -> dict[str, Any]:
        """Those of the options that the policy takes."""
        return {name: getattr(self, name) for name in POLICY_SETTINGS.get(self.policy, ())}


def _file(told: str) -> Any:
    return option(None, told, kind=Path, parse_text=Path, metavar="FILE")


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Files that are written beside a run, for the simulator."""

    trace_guesses: Path | None = _file(
        "Write what each layer would guess of the next one's routing, for simulate --guesses."
    )
    trace_cache: Path | None = _file(
        "Write which experts were in memory whenever a layer asked for some."
    )


POLICY_SETTINGS = {"decay": ("half_life", "window"), "blend": ("half_life",)}
"""Which of the options each policy takes, if any."""

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "decay": {},
    "lru": {"policy": "lru"},
    "lfu": {"policy": "lfu"},
    "fate": {"policy": "arc", "layer_budget": "shallow", "prefetch_mass": 1.0},
    "moepic": {"policy": "lcp", "layer_budget": "adaptive", "split": "auto"},
}
"""Published systems, as far as they leave the output exact, by what they change of the defaults.

Sources: LFU for LRU, arXiv 2511.05814; Fate, arXiv 2502.12224; MoEpic, arXiv 2509.08342; ``decay``
is ours.
"""


def knobs() -> dict[str, Declared]:
    """What ``--stream KEY=VALUE`` takes, by key: all that has no flag of its own."""
    fields = {**declared(StreamingOptions), **declared(TraceOptions)}.values()
    return {each.flag: each for each in fields if each.name not in ("io", "prefetch")}


def read_knob(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE``: a field of ``StreamingOptions`` or ``TraceOptions``, and its value.

    Raises:
        ValueError: no such key, or no such value; the message says what there is.
    """
    key, equals, value = text.partition("=")
    known = knobs()
    each = known.get(key.strip().lower().replace("_", "-"))
    if each is None:
        close = get_close_matches(key, known)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"there is no {key!r} to set; {hint}")
    if not equals:
        raise ValueError(f"{text!r} has no value; expected {each.flag}=VALUE")
    return each.name, each.parse(value.strip())


def by_strategy(name: str, **changes: Any) -> StreamingOptions:
    """The options of a published system, with ``changes``.

    Raises:
        BudgetError: no system is called so, or a value that an option does not take.
    """
    if name not in STRATEGIES:
        raise BudgetError(f"no strategy is called {name!r}; there are: {', '.join(STRATEGIES)}")
    return replace(StreamingOptions(), **{**STRATEGIES[name], **changes})
