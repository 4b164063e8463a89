"""A script that ends the process that waits in vain for other ranks, and says which did not come.

It is a process of its own, as MLX holds Python's lock while it waits. Imports nothing of moestream.
"""

import os
import signal
import socket
import sys
import time


def main(pid: str, seconds: str, how: str, *others: str) -> None:
    """Wait; then tell, if ``how`` is so, and kill."""
    waited, started = int(pid), time.monotonic()
    while time.monotonic() < started + float(seconds):
        time.sleep(0.1)
        if os.getppid() != waited:
            return
    if how == "tell":
        named = [each.rpartition("=") for each in others]
        missing = [name for name, _, address in named if not _listens(address)]
        names = " and ".join(missing or [name for name, *_ in named]) or "another rank"
        sys.stderr.write(
            f"error: {names} did not join within {seconds} s; see that moestream starts there "
            "(ssh HOST moestream --version) and that its port can be reached, then start again\n"
        )
        sys.stderr.flush()
    os.kill(waited, signal.SIGKILL)


def _listens(address: str) -> bool:
    """Whether a rank still waits there for the one before it."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=0.5):
            return True
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
