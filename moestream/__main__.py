"""``python -m moestream``: the command line without an installed script."""

from moestream.cli import main

main()
