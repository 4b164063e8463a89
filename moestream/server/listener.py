"""The server on a port: a thread with an event loop, open before the model is there.

Owns the socket, the thread, and the order of the end: answers that are being written end with a
clean last event, and nobody waits longer than a few seconds for them.
"""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
import uvloop

from moestream.closing import Closing
from moestream.errors import ResourceError
from moestream.server.app import make_app
from moestream.server.connection import Connection
from moestream.server.model import Model
from moestream.server.options import ServerOptions
from moestream.server.security import LONGEST_HEAD
from moestream.server.state import State

_LONGEST_END_S = 4
_LONGEST_WORK_S = 2
"""For what is worked on beside the loop, once all connections have ended."""
_LOOK_S = 0.01
_KEEP_ALIVE_S = 30
_BACKLOG = 256
_NO_MORE: Any = {"lifespan": "off", "ws": "none", "log_config": None, "log_level": "critical"}
_NO_MORE |= dict.fromkeys(("access_log", "server_header", "proxy_headers"), False)
"""Of uvicorn plain HTTP alone: what it would log is told by ``app``."""


class Listener(Closing):
    """Listens from the start; ``serve`` gives it the model, ``close`` ends it."""

    def __init__(
        self,
        options: ServerOptions,
        keys: Sequence[str] = (),
        *,
        log: Callable[[str], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Open the port; ``log`` is told a line a request, ``warn`` what went wrong.

        Raises:
            ResourceError: the port or the address is not to be had.
        """
        self._socket = _bind(options.host, options.port)
        self.port: int = self._socket.getsockname()[1]
        self._host = options.host
        self.state = State(options)
        if log is not None:
            self.state.log = log
        if warn is not None:
            self.state.warn = warn
        config = uvicorn.Config(
            make_app(self.state, keys),
            http=Connection,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LONGEST_END_S,
            **_NO_MORE,
        )
        self._server = uvicorn.Server(config)
        self._loop = uvloop.new_event_loop()
        self._beside = ThreadPoolExecutor()
        self._loop.set_default_executor(self._beside)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def serve(self, model: Model) -> None:
        """Answer with this model from now on."""
        self._loop.call_soon_threadsafe(self.state.serve, model)

    def check(self) -> None:
        """See that it still listens.

        Raises:
            RuntimeError: it does not, which must not be.
        """
        if not self._thread.is_alive():
            raise RuntimeError("the server's thread has ended")

    def close(self) -> None:
        """End the answers, tell their clients so, and close the port."""
        with suppress(RuntimeError):  # where the loop has ended already
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def _end(self) -> None:
        self.state.close()
        self._server.should_exit = True

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._server.serve([self._socket]))
            self._loop.run_until_complete(self._end_work())
        finally:
            self._loop.close()

    async def _end_work(self) -> None:
        """Wait for what is worked on beside the loop, while that lets go of its connections."""
        end = partial(self._beside.shutdown, cancel_futures=True)
        ending = threading.Thread(target=end, daemon=True)
        ending.start()
        last = self._loop.time() + _LONGEST_WORK_S
        while ending.is_alive() and self._loop.time() < last:
            await asyncio.sleep(_LOOK_S)


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the first address of a name.

    Raises:
        ResourceError: there is no such name or address here, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ResourceError(f"--host {host} is no address and no name of one") from None
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ResourceError(_not_bound(host, port, error)) from None
    return listening


def _not_bound(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use; choose another with --port, or 0 for any"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; leave --host out, or give one that is"
        case errno.EACCES | errno.EPERM:
            return f"port {port} is not for everyone; choose one of 1024 and up with --port"
    return f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}"
