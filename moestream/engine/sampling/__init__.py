"""From logits to the next token: llama.cpp's samplers, in its order and with its defaults.

``sampler`` chooses, ``chain`` is the order, ``plain`` the quick way where it is the usual one.
Knows nothing of text or models.
"""

from moestream.engine.sampling.breakers import NO_BREAKERS, Breakers
from moestream.engine.sampling.sampler import Constraint, Sampler, log_probabilities

__all__ = ["NO_BREAKERS", "Breakers", "Constraint", "Sampler", "log_probabilities"]
