"""One file a command: its options, then open, run, report."""
