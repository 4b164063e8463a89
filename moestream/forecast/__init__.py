"""Foresees how fast a model will run, before it is loaded.

``demand`` is what the model asks of a machine, read off its header; ``machine`` what this machine
gives, measured once; ``hits`` how often an expert is in memory, by the room that experts have;
``speed`` puts the three together.
"""
