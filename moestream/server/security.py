"""Who may ask, from where, and how much: what is checked before a request is read.

Owns Host (against DNS rebinding), Origin and CORS, keys, and the size of bodies. Pure ASGI: nothing
is buffered, and a stream passes through as it is. What it defends against: docs/server.md.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestream.server.body import JSON
from moestream.server.errors import APIError
from moestream.server.options import LOOPBACK, ServerOptions
from moestream.server.page import is_page

_PUBLIC = ("/health", "/v1/health")
_METHODS = "GET, POST, OPTIONS"
LONGEST_HEAD = 64 << 10
"""Of a request's path and headers together, in bytes."""


class Guard:
    """Answers what may not pass, and hands on the rest."""

    def __init__(self, app: ASGIApp, options: ServerOptions, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [_digest(key.encode()) for key in keys]
        self._most = options.max_body
        self._page = not options.no_page
        self._origins = options.cors
        self._hosts: frozenset[str] | None = None
        if options.is_local or options.allowed_host:
            own = LOOPBACK if options.is_local else ()
            self._hosts = frozenset(map(_folded, (*own, options.host, *options.allowed_host)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            _check_head(scope)
            self._check_host(headers)
            origin = self._checked_origin(headers)
        except APIError as error:
            await JSON(error.body_at(scope["path"]), error.status)(scope, receive, send)
            return
        answer = self._answer(scope, headers)
        if origin is not None:
            send = _allowing(origin, send)
        if answer is not None:
            await answer(scope, receive, send)
            return
        await self._app(scope, self._counting(receive), send)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """What is answered without a look at the request itself."""
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return _preflight(headers)
        try:
            if scope["path"] not in _PUBLIC and not (self._page and is_page(scope["path"])):
                self._check_key(headers)
            self._check_length(headers)
        except APIError as error:
            return JSON(error.body_at(scope["path"]), error.status, error.headers)
        return None

    def _check_host(self, headers: Headers) -> None:
        """A page whose name was made to lead here would be of the same origin as we are."""
        if self._hosts is None:
            return
        names = headers.getlist("host")
        if len(names) != 1 or _hostname(names[0]) not in self._hosts:
            raise APIError(
                403,
                "this server does not answer to that Host; start it with --allowed-host NAME to "
                "add one",
            )

    def _checked_origin(self, headers: Headers) -> str | None:
        """The origin that is to be allowed in the answer, if the request has one."""
        origin = headers.get("origin")
        if origin is None:
            return None
        if origin.partition("://")[2] == headers.get("host"):
            return None  # our own page
        if not is_allowed(origin, self._origins):
            raise APIError(
                403, "pages of this origin may not ask; start the server with --cors ORIGIN"
            )
        return origin

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        given = headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # All are compared, and as digests: the time tells nothing, of their length neither.
        asked = _digest(key.encode("latin-1"))
        found = [hmac.compare_digest(asked, each) for each in self._keys]
        if not any(found):
            raise APIError(401, "invalid API key")

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self._most:
            raise self._too_large()

    def _counting(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> APIError:
        return APIError(413, f"the body is larger than {self._most} bytes")


def _check_head(scope: Scope) -> None:
    """A head that comes in one piece passes the protocol's own limit."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEAD:
        raise APIError(431, f"path and headers are larger than {LONGEST_HEAD} bytes")


def is_allowed(origin: str, allowed: Iterable[str]) -> bool:
    """Whether one of the origins that were given on the command line is meant."""
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return any(
        each in ("*", origin) or (each == "localhost" and host in LOOPBACK) for each in allowed
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _preflight(headers: Headers) -> Response:
    asked = headers.get("access-control-request-headers", "*")
    return Response(
        headers={
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": asked,  # * would not cover Authorization
            "access-control-max-age": "600",
        }
    )


def _allowing(origin: str, send: Send) -> Send:
    async def allowed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-allow-credentials"] = "true"
            headers.append("vary", "Origin")
        await send(message)

    return allowed


def _hostname(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].casefold()
    return _folded(host.partition(":")[0])


def _folded(name: str) -> str:
    return name.casefold().rstrip(".")
