"""Foresees how fast a model will run, before it is loaded.

``demand`` is what the model asks of a machine, read off its header; ``hits`` how often an expert
is in memory, by the room that experts have; ``speed`` puts the two together with what the machine
gives (``moestream.machine``), and ``first_token`` does so for a prompt; ``outlook`` does so for
every budget, ``verdict`` says in words what to expect, ``support`` whether the model runs at all.
"""
