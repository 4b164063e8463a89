"""The order of samplers: which are on, what each gets, and whether ``plain`` does them at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from moestream.engine.options import SamplingParams
from moestream.engine.sampling import cuts
from moestream.engine.sampling.breakers import Breakers
from moestream.engine.sampling.candidates import Candidates
from moestream.engine.sampling.penalties import dry, penalties
from moestream.engine.sampling.temperature import dynamic_temperature, temperature

Step = Callable[[Candidates, Sequence[int]], Candidates]
"""From candidates, and the tokens so far, to candidates."""
_PLAIN = ("penalties", "top_k", "top_p", "min_p", "temperature")
_NEUTRAL: dict[str, dict[str, float]] = {
    "penalties": {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    "top_k": {"top_k": 0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "temperature": {"temperature": 1.0},
}
"""What a plain sampler that is not in the order is: off."""


def plain_params(params: SamplingParams) -> SamplingParams | None:
    """What ``plain`` takes for the same choices; None where it cannot make them."""
    on = [name for name in params.samplers if _is_on(name, params)]
    off = [name for name in _PLAIN if name not in on]
    if params.mirostat or on != [name for name in _PLAIN if name in on]:
        return None
    if "temperature" in on and params.dynatemp_range > 0:
        return None
    changes: dict[str, float] = {}
    for name in off:
        changes |= _NEUTRAL[name]
    return replace(params, **changes)  # type: ignore[arg-type]


def steps(params: SamplingParams, random: np.random.Generator, breakers: Breakers) -> list[Step]:
    """The samplers that are on, in their order; before Mirostat there is temperature alone."""
    order = ("temperature",) if params.mirostat else params.samplers
    on = (name for name in order if _is_on(name, params))
    return [_step(name, params, random, breakers) for name in on]


def _is_on(name: str, params: SamplingParams) -> bool:
    return {
        "penalties": params.penalises,
        "dry": params.dry_multiplier > 0 and params.dry_penalty_last_n != 0,
        "top_n_sigma": params.top_n_sigma > 0,
        "top_k": params.top_k > 0,
        "typ_p": params.typical_p < 1,
        "top_p": params.top_p < 1,
        "min_p": params.min_p > 0,
        "xtc": params.xtc_probability > 0 and params.xtc_threshold <= cuts.MOST_XTC_THRESHOLD,
        "temperature": True,
    }[name]


def _step(
    name: str, params: SamplingParams, random: np.random.Generator, breakers: Breakers
) -> Step:
    if name == "penalties":
        return partial(penalties, params=params)
    if name == "dry":
        return partial(dry, params=params, breakers=breakers)
    return _without_history(_cut(name, params, random))


def _cut(
    name: str, params: SamplingParams, random: np.random.Generator
) -> Callable[[Candidates], Candidates]:
    if name == "temperature":
        middle, reach = params.temperature, params.dynatemp_range
        if reach > 0 and not params.mirostat:
            exponent = params.dynatemp_exponent
            return partial(dynamic_temperature, middle=middle, reach=reach, exponent=exponent)
        return partial(temperature, value=middle)
    if name == "xtc":
        probability, threshold = params.xtc_probability, params.xtc_threshold
        return partial(cuts.xtc, probability=probability, threshold=threshold, random=random)
    return {
        "top_n_sigma": partial(cuts.top_n_sigma, n=params.top_n_sigma),
        "top_k": partial(cuts.top_k, k=params.top_k),
        "typ_p": partial(cuts.typical, p=params.typical_p),
        "top_p": partial(cuts.top_p, p=params.top_p),
        "min_p": partial(cuts.min_p, p=params.min_p),
    }[name]


def _without_history(cut: Callable[[Candidates], Candidates]) -> Step:
    return lambda candidates, history: cut(candidates)
