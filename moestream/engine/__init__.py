"""A loaded model, and token timelines on it. Knows nothing of text.

``engine`` opens a file on a backend and divides memory, ``expert_streaming`` joins its experts to
``streaming``, ``session`` runs tokens, ``sampling`` chooses the next. ``options`` is what may be
chosen.
"""
