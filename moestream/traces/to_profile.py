"""A profile of the run that a trace is of."""

import numpy as np

from moestream.profiles import PROFILE_HALF_LIFE, Fingerprint, Profile, UseCounter
from moestream.traces.format import Trace, TraceHeader


def fingerprint_of(header: TraceHeader) -> Fingerprint:
    """What a trace says of its model: no hash of the tensors."""
    return Fingerprint(
        architecture=header.arch,
        num_layers=header.num_layers,
        num_experts=header.num_experts,
        num_experts_per_tok=header.num_experts_per_tok,
        expert_bytes=dict(sorted(header.expert_bytes.items())),
    )


def count_trace(trace: Trace, name: str, *, half_life: float = PROFILE_HALF_LIFE) -> Profile:
    """Count what a trace's run used."""
    fingerprint = fingerprint_of(trace.header)
    counter = UseCounter(fingerprint.expert_bytes, fingerprint.num_experts, half_life)
    for layer in fingerprint.expert_bytes:
        rows = trace.rows[trace.rows["layer"] == layer]
        if len(rows):
            new = np.ones(len(rows), np.bool_)
            new[1:] = (np.diff(rows["turn"]) != 0) | (np.diff(rows["step"]) != 0)
            counter.add_routed(layer, rows["expert"], np.cumsum(new) - 1)
    return counter.profile(name, trace.header.model, fingerprint, {"trace": trace.path.name})
