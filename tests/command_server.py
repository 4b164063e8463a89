"""Runs commands fast: what they all import is imported once, and each runs in a fork of that.

Started with the number of a socket, over which ``command_line`` sends arguments, environment and
folder as a line of JSON, with the files that are to be standard input, output and error; it is
sent the exit status.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import threading

# Nothing that reads the environment as it is imported (huggingface_hub), or starts a thread.
MODULES = (
    *("numpy", "click", "click.shell_completion", "jinja2.sandbox", "tokenizers", "gguf"),
    *("rich.console", "rich.progress", "rich.markdown", "prompt_toolkit"),
    *(
        f"moestream.cli.commands.{name}"
        for name in ("bench", "cache", "generate", "chat.program", "inspect", "models", "plan")
    ),
    *("moestream.cli.commands.profile", "moestream.cli.commands.simulate"),
    *("moestream.cli.commands.chat.actions", "moestream.cli.commands.chat.slash"),
    *("moestream.backends.cpu", "moestream.catalog", "moestream.machine.calibration"),
    *("moestream.chat.attachments", "moestream.chat.dialogue", "moestream.chat.output"),
    *("moestream.terminal", "moestream.terminal.plain", "moestream.terminal.status"),
    *("moestream.demo", "moestream.forecast.outlook", "moestream.forecast.support"),
    *("moestream.profiles.names", "moestream.traces.simulator", "moestream.ui.logs"),
)


def receive(connection: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """The next request and its files; None once nobody asks any more."""
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while data and not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    return (json.loads(data), files) if data else None


def become(request: dict[str, object], files: list[int]) -> None:
    """Make of this process the one that was asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["moestream", *request["arguments"]]


def serve(connection: socket.socket) -> bool:
    """Fork for every request and wait for the end; True in a fork."""
    while (asked := receive(connection)) is not None:
        process = os.fork()
        if process == 0:
            connection.close()
            become(*asked)
            return True
        for file in asked[1]:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(b"%d\n" % status)
    return False


def end(status: object) -> None:
    """End a fork as an interpreter does, but for taking apart what all forks share: 0.1 s."""
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # so that no fork copies all of it to look through it
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        try:
            runpy.run_module("moestream", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            end(ended.code)
