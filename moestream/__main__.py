"""Where the command starts: small, so that Ctrl-C is answered while the rest is imported."""

import sys


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        from moestream.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
