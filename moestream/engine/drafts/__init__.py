"""Tokens that are guessed ahead, so that one pass can run several: a right guess saves a pass.

``ngrams`` and ``mtp`` guess, ``paying`` says when that pays, ``drafting`` joins them for an answer;
``stepping`` runs what was guessed and takes it back, ``ahead`` holds what a pass gave for tokens
that are not known to be any yet. No guess changes a token: each is sampled from its own logits, and
those have the same bits in any pass.
"""

from moestream.engine.drafts.ahead import rows_of
from moestream.engine.drafts.drafting import Drafting
from moestream.engine.drafts.drafts import Drafts, possible
from moestream.engine.drafts.stepping import Stepping

__all__ = ["Drafting", "Drafts", "Stepping", "possible", "rows_of"]
