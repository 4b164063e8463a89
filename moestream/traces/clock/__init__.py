"""Replays a trace as events in time, on a machine that need not be here.

``machine`` is what it gives and what a model takes of it; ``reader`` a disk that exists in the
clock alone, behind the face of the real reader; ``turns`` what is asked for, ``foretold`` what is
guessed; ``replay`` runs the live residency, policies and prefetcher on all of these.
"""
