"""What may be chosen of sampling; names and defaults are llama.cpp's."""

import math
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from moestream.declare import check, option
from moestream.engine.sampler_names import SAMPLERS, read_samplers


def draw_seed() -> int:
    """A seed by chance, to be told so that a run can be repeated."""
    return secrets.randbits(32)


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_MOST_MIROSTAT = 2


def _read_bias(text: str) -> tuple[int, float]:
    """A token and what is added to its score, as ``15043+1``, ``15043-1`` or ``15043-inf``."""
    match = re.fullmatch(r"\s*(\d{1,9})([+-](?:inf|[0-9.]+(?:e[+-]?\d+)?))\s*", text)
    with suppress(ValueError):
        if match is not None and (bias := float(match[2])) < math.inf:
            return int(match[1]), bias
    raise ValueError(f"{text!r}, expected a token's id and a number with its sign, as 15043-1")


def _read_breaker(text: str) -> str:
    """A text in which escapes, as of a new line, stand for what they do in C."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text)


def _read_seed(text: str) -> int:
    if text == "-1":
        return draw_seed()
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**32:
        raise ValueError(
            f"{text!r}, expected a whole number of 0 to {2**32 - 1}, or -1 to draw one"
        )
    return int(text)


_NUMBER: Any = {"metavar": "N", "rare": True}
_SHARE: Any = {"least": 0, "most": 1, "metavar": "P", "rare": True}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch theirs off.
    Penalties look at the last ``repeat_last_n`` tokens, prompt included (-1: all, 0: none).

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = option(
        0.8,
        "0 always takes the likeliest token.",
        flags=("--temp", "--temperature"),
        least=0,
        metavar="N",
    )
    top_k: int = option(
        40,
        "Choose among the N likeliest tokens; 0 is off.",
        least=0,
        words={"-1": 0},
        metavar="N",
    )
    top_p: float = option(
        0.95,
        "Choose among the likeliest that reach P together.",
        least=0,
        most=1,
        metavar="P",
    )
    min_p: float = option(
        0.05,
        "Leave out those below P of the likeliest's chance.",
        least=0,
        most=1,
        metavar="P",
    )
    repeat_penalty: float = option(
        1.0, "Divide the scores of recent tokens by N; 1 is off.", least=0, above=True, metavar="N"
    )
    repeat_last_n: int = option(
        64,
        "How many tokens back penalties look; 0 is none, -1 is all.",
        least=-1,
        metavar="N",
        rare=True,
    )
    presence_penalty: float = option(
        0.0, "Take N off the score of recent tokens; 0 is off.", metavar="N", rare=True
    )
    frequency_penalty: float = option(
        0.0, "The same, for each time that they were seen.", metavar="N", rare=True
    )
    dry_multiplier: float = option(
        0.0, "Penalise what goes on with a repetition (DRY) by N; 0 is off.", least=0, **_NUMBER
    )
    dry_base: float = option(
        1.75, "For each token that it is longer, multiply that by N.", least=1, **_NUMBER
    )
    dry_allowed_length: int = option(
        2, "How long a repetition may be before that.", least=0, **_NUMBER
    )
    dry_penalty_last_n: int = option(
        64, "How many tokens back DRY looks; 0 is none, -1 is all.", least=-1, **_NUMBER
    )
    dry_sequence_breakers: tuple[str, ...] = option(
        ("\n", ":", '"', "*"),
        "A repetition ends at this text; may be repeated, none is without any.",
        flags=("--dry-sequence-breaker",),
        parse_text=_read_breaker,
        default_told='\\n : " *',
        metavar="TEXT",
        rare=True,
    )
    top_n_sigma: float = option(
        -1.0,
        "Leave out those N standard deviations below the likeliest's score; -1 is off.",
        flags=("--top-n-sigma", "--top-nsigma"),
        **_NUMBER,
    )
    typical_p: float = option(
        1.0,
        "Choose among those nearest to the expected surprise that reach P together; 1 is off.",
        flags=("--typical", "--typical-p"),
        **_SHARE,
    )
    xtc_probability: float = option(
        0.0, "Leave out the likeliest (XTC) with the chance P; 0 is off.", **_SHARE
    )
    xtc_threshold: float = option(
        0.1, "All but the last of those likelier than P; above 0.5 is off.", **_SHARE
    )
    dynatemp_range: float = option(
        0.0, "Let the temperature be N lower where sure, N higher where not.", least=0, **_NUMBER
    )
    dynatemp_exponent: float = option(
        1.0,
        "How it follows from how sure: by which power.",
        flags=("--dynatemp-exp",),
        least=0,
        **_NUMBER,
    )
    mirostat: int = option(
        0,
        "1 or 2 is Mirostat, instead of all samplers but the temperature; 0 is off.",
        least=0,
        most=_MOST_MIROSTAT,
        **_NUMBER,
    )
    mirostat_tau: float = option(
        5.0,
        "The surprise in bits that Mirostat aims at.",
        flags=("--mirostat-ent", "--mirostat-tau"),
        least=0,
        **_NUMBER,
    )
    mirostat_eta: float = option(
        0.1,
        "How quickly Mirostat learns.",
        flags=("--mirostat-lr", "--mirostat-eta"),
        least=0,
        **_NUMBER,
    )
    samplers: tuple[str, ...] = option(
        SAMPLERS,
        "Which samplers there are, and their order.",
        many=False,
        parse_text=read_samplers,
        default_told=";".join(SAMPLERS),
        metavar="NAME;NAME...",
        rare=True,
    )
    logit_bias: tuple[tuple[int, float], ...] = option(
        (),
        "Add to a token's score, as 15043+1 or 15043-inf; may be repeated.",
        flags=("-l", "--logit-bias"),
        parse_text=_read_bias,
        metavar="ID+N",
        rare=True,
    )
    ignore_eos: bool = option(False, "Never end by itself.", rare=True)
    seed: int | None = option(
        None,
        "Seed of the random choices; -1 draws one.",
        flags=("-s", "--seed"),
        kind=int,
        least=0,
        most=2**32 - 1,
        parse_text=_read_seed,
        default_told="-1",
        metavar="N",
    )

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.samplers, tuple) or not set(self.samplers) <= set(SAMPLERS):
            raise ValueError(f"samplers is {self.samplers!r}, expected names of {SAMPLERS}")

    @property
    def breakers(self) -> tuple[str, ...]:
        """The texts at which a repetition ends."""
        return () if "none" in self.dry_sequence_breakers else self.dry_sequence_breakers

    @property
    def penalises(self) -> bool:
        """Whether tokens of the past change a score."""
        return self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class SamplingChoice:
    """What a user said of sampling, by field; what they did not is advice, or the default."""

    said: Mapping[str, Any]

    def over(self, advice: Mapping[str, Any]) -> SamplingParams:
        """What comes of it."""
        return SamplingParams(**{**advice, **self.said})
