"""A program that waits for a disk, and Ctrl-C."""

import signal
import subprocess
import sys
import time
from pathlib import Path


def check_interrupted(program: str, model: Path) -> None:
    """Run a program that says ``waiting`` and stalls; a Ctrl-C is to end it at once, and well."""
    command = [sys.executable, "-c", program, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert out == "interrupted\n"
        assert process.returncode == 0
