"""Which experts are in memory: routing traces, policies, budgets and the offline simulator.

Owns bytes and decisions. Knows no arithmetic, no text and no terminal.

An expert is a *key* here, ``layer * num_experts + expert``: policies count and compare millions of
them, and an int is what Python does that fastest with.
"""
