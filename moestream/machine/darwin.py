"""What macOS tells of the machine: sysctl's values.

Knows the command, not what the values mean.
"""

import subprocess
import sys


def sysctl(name: str) -> str | None:
    """One value as text; None on other systems, and where there is no such value."""
    if sys.platform != "darwin":
        return None
    asked = ["/usr/sbin/sysctl", "-n", name]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
