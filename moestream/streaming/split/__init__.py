"""Experts of which only a head is kept: MoEpic's split, a residency of its own.

Source: MoEpic, arXiv 2509.08342.
"""
