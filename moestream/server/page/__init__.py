"""The page at ``/``: files of the package, as a browser may have them.

Owns which files there are, and what a browser is told it may do with them: it runs no script and
takes no style but these, and asks nobody but this server. What the files do is theirs.
"""

import hashlib
from functools import partial
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
FOLDER = "/page/"
"""Where all files are but the first."""


def is_page(path: str) -> bool:
    """Whether a path is of the page, which tells nothing of the model and needs no key."""
    return path == "/" or path.startswith(FOLDER)


def page_routes() -> list[Route]:
    """A route for each file."""
    routes = []
    for file in files(__name__).iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _KINDS:
            path = "/" if file.name == "index.html" else FOLDER + file.name
            data = file.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            answer = partial(_file, data=data, kind=_KINDS[suffix], tag=tag)
            routes.append(Route(path, answer, methods=["GET"]))
    return routes


async def _file(request: Request, *, data: bytes, kind: str, tag: str) -> Response:
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers={**headers, "content-type": kind})
