"""A server on 127.0.0.1 that answers as the hub does, and fails as networks do.

Two ports: the hub, which redirects to the second, where the bytes are, as to a CDN.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

COMMIT = "c0ffee" * 6 + "c0ff"
_STEP_S = 0.02


@dataclass
class Request:
    method: str
    path: str
    port: int
    headers: dict[str, str]


@dataclass
class FakeHub:
    """Its repository ``org/model``, and what is wrong with it."""

    files: dict[str, bytes]
    drops: list[int] = field(default_factory=list)
    """Bytes after which each coming answer of the CDN breaks off; then all are whole."""
    stated_sha256: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Files that are listed but not there."""
    token: str | None = None
    """What opens the repository, if it is gated."""
    ignores_ranges: bool = False
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    cdn_url: str = ""
    entered: threading.Event = field(default_factory=threading.Event)
    """Set when a file is asked for."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the listing says otherwise."""
    sends_to: str | None = None
    """Where a file is said to be, instead of at the CDN."""
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of each coming answer of the CDN; then all are as they should be."""
    found: Any = None
    """What a search finds, if not the repository alone."""
    range_told: str | None = None
    """What each answer of the CDN says that it is, if that is not so."""
    bytes_per_s: float | None = None
    """Of each connection to the CDN."""
    together: int = 0
    """Answers of the CDN that were under way at once, at most."""
    hold: threading.Event | None = None
    """Wait for this in the middle of each answer of the CDN."""

    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counting(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
            self.together = max(self.together, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def of_cdn(self) -> list[Request]:
        port = int(self.cdn_url.rpartition(":")[2])
        return [request for request in self.requests if request.port == port]

    def listing(self) -> dict[str, Any]:
        return {
            "_id": "1",
            "id": "org/model",
            "sha": COMMIT,
            "private": False,
            "siblings": [
                {
                    "rfilename": name,
                    "size": len(data),
                    "blobId": "0" * 40,
                    "lfs": {"sha256": self.sha256(name), "size": len(data), "pointerSize": 130},
                }
                for name, data in self.files.items()
            ],
        } | self.told

    def search(self, asked: dict[str, list[str]]) -> Any:
        """As the hub answers: the repositories whose names have the words."""
        if asked["filter"] != ["gguf"] or asked["search"][0] not in "org/model":
            return []
        model = {"id": "org/model", "downloads": 12, "gguf": {"architecture": "llama", "total": 5}}
        return self.found or [model]

    def sha256(self, name: str) -> str:
        return self.stated_sha256.get(name) or _sha256(self.files[name])


@cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    hub = FakeHub(files)
    servers = []
    for name in ("url", "cdn_url"):
        handler = type("Handler", (_Handler,), {"hub": hub})
        server = _Server(("127.0.0.1", 0), handler)
        setattr(hub, name, f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that are gone, as those of a download that was killed."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, self.path, port, headers))
        if (match := re.match(r"/blob/([^?]+)", self.path)) is not None:
            self._send_blob(match[1])
        elif (match := re.match(r"/org/model/resolve/(\w+)/([^?]+)", self.path)) is not None:
            self._redirect(match[1], match[2])
        elif (match := re.match(r"/api/models\?(.+)", self.path)) is not None:
            self._send(200, json.dumps(self.hub.search(parse_qs(match[1]))).encode())
        elif re.match(r"/api/models/org/model(\?|$)", self.path):
            self._send(200, json.dumps(self.hub.listing()).encode())
        else:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _redirect(self, commit: str, name: str) -> None:
        token = self.hub.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self._send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif name in self.hub.lost or name not in self.hub.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            linked = {
                "Location": self.hub.sends_to or f"{self.hub.cdn_url}/blob/{name}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{self.hub.sha256(name)}"',
                "X-Linked-Size": str(len(self.hub.files[name])),
                "ETag": '"of-the-pointer"',
                # What a hub says that keeps the file in Xet storage too.
                "X-Xet-Hash": self.hub.sha256(name),
                "X-Xet-Refresh-Route": f"{self.hub.url}/xet-read-token/{commit}",
            }
            self._send(302, b"", linked)

    def _send_blob(self, name: str) -> None:
        data, status, headers = self.hub.files[name], 200, {"Accept-Ranges": "bytes"}
        if self.hub.refusals:
            self._send(self.hub.refusals[0][0], b"", self.hub.refusals.pop(0)[1])
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is not None and not self.hub.ignores_ranges:
            start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = self.hub.range_told or f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self.hub.entered.set()
        drop = self.hub.drops.pop(0) if self.hub.drops else None
        with self.hub.counting():
            self._send(status, data, headers, len(data) // 2 if self.hub.hold else drop)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        drop: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        pace = self.hub.bytes_per_s
        step = len(body) if pace is None else int(pace * _STEP_S)
        for start in range(0, len(body[:drop]), step or 1):
            self.wfile.write(body[:drop][start : start + step])
            self.wfile.flush()
            time.sleep(0 if pace is None else _STEP_S)
        if drop is None:
            return
        if self.hub.hold is not None:
            self.hub.hold.wait(60)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
