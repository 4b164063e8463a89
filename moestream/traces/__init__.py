"""Routing traces: their format, what records them, and the simulator that replays them."""
