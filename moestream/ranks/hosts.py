"""Hosts as a person names them: whether moestream can be started there, and how it is on all.

Owns what ``ssh`` and ``mlx.launch`` are asked. Knows nothing of ranks.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from moestream.errors import RankError

HERE = "127.0.0.1"
"""The one host that ``mlx.launch`` does not reach by ssh."""
_REACH_S = 5
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_REACH_S}")
_NOT_FOUND = 127
"""A shell's exit status where there is no such command; ssh's own is 255."""
_LAUNCH = "import sys; from mlx._distributed_utils.launch import main; sys.exit(main())"


def require_reachable(hosts: Sequence[str]) -> None:
    """See that moestream starts on all of them.

    Raises:
        RankError: it does not on some; it names them, why, and what to do.
    """
    others = [host for host in dict.fromkeys(hosts) if host != HERE]
    with ThreadPoolExecutor(max(len(others), 1)) as pool:
        wrong = [told for told in pool.map(_wrong, others) if told is not None]
    if wrong:
        raise RankError("; ".join(wrong))


def _wrong(host: str) -> str | None:
    command = [*_SSH, host, "moestream --version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=4 * _REACH_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return f"{host} cannot be reached: there is no ssh here; install OpenSSH"
    except subprocess.TimeoutExpired:
        return f"{host} has not answered for {4 * _REACH_S} s; see what ssh {host} says"
    if done.returncode == 0:
        return None
    if done.returncode == _NOT_FOUND:
        return (
            f"{host} has no moestream in the PATH of ssh; see ssh {host} 'echo $PATH', and install "
            "it there"
        )
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"{host} cannot be reached: {said}; see that ssh {host} works and asks for no password"


def run_on_all(hosts: Sequence[str], port: int | None, command: Sequence[str]) -> str:
    """Run a command on all hosts at the same time; return what they write.

    Raises:
        RankError: it failed, and this is what it said.
    """
    if importlib.util.find_spec("mlx") is None:
        raise RankError(
            "there is no MLX here, which starts what runs on several machines; install it: pip "
            "install 'mlx[cpu]' (on a Mac: pip install mlx)"
        )
    listen = [] if port is None else ["--starting-port", str(port)]
    launch = [sys.executable, "-c", _LAUNCH, "--hosts", ",".join(hosts), *listen, "--", *command]
    done = subprocess.run(launch, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.stdout.strip():
        return done.stdout
    lines = done.stderr.strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = lines[-1] if lines else "nothing was said"
    raise RankError(errors[0] if errors else f"the hosts cannot be started together: {last}")
