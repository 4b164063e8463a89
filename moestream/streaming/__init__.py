"""Experts as ranges of bytes: where they lie, who holds memory, who reads them and when.

Knows no arithmetic, no text and no terminal. In reading order: ``store`` (where they lie),
``layout`` and ``reader`` (how they are read), ``slots`` and ``slot_table`` (memory for them),
``residency`` with ``slotted``, ``mapped`` and ``split`` (who is in memory when a layer asks),
``prefetch`` (guesses), ``memory`` and ``pressure`` (limits), ``build`` (all of it together).

An expert is a *key* here, ``layer * num_experts + expert``: policies count and compare millions of
them, and an int is what Python does that fastest with.
"""
