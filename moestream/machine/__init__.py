"""What this machine is and how fast: facts, its disk, and speeds measured once and kept."""
