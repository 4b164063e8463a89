"""Which path leads where, and what is around all of them: checks, errors, a line for the log."""

import time
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestream.errors import MoestreamError
from moestream.server import about, experts, text
from moestream.server.anthropic import messages
from moestream.server.body import JSON
from moestream.server.errors import APIError, api_error
from moestream.server.metrics import metrics
from moestream.server.openai import chat, completions, llama, responses
from moestream.server.page import page_routes
from moestream.server.security import Guard
from moestream.server.state import State, state_of

_GET = {
    "/health": about.health,
    "/v1/health": about.health,
    "/models": about.models,
    "/v1/models": about.models,
    "/models/{name:path}": about.model,
    "/v1/models/{name:path}": about.model,
    "/props": about.props,
    "/slots": about.slots,
    "/metrics": metrics,
    "/openapi.json": about.openapi,
}
_POST = {
    "/chat/completions": chat.chat_completions,
    "/v1/chat/completions": chat.chat_completions,
    "/chat/completions/input_tokens": chat.input_tokens,
    "/v1/chat/completions/input_tokens": chat.input_tokens,
    "/apply-template": chat.apply_template,
    "/v1/completions": completions.completions,
    "/responses": responses.responses,
    "/v1/responses": responses.responses,
    "/completion": llama.completion,
    "/completions": llama.completion,
    "/messages": messages.messages,
    "/v1/messages": messages.messages,
    "/messages/count_tokens": messages.count_tokens,
    "/v1/messages/count_tokens": messages.count_tokens,
    "/tokenize": text.tokenize,
    "/detokenize": text.detokenize,
    **dict.fromkeys(about.EMBEDDINGS, about.no_embeddings),
    **dict.fromkeys(about.RERANKING, about.no_reranking),
}
_PAGE = (
    Route("/v1/moestream/residency", experts.residency, methods=["GET"]),
    Route("/v1/moestream/profiles", experts.profiles, methods=["GET"]),
    Route("/v1/moestream/profiles", experts.save_profile, methods=["POST"]),
    Route("/v1/moestream/profiles/{name}", experts.profile, methods=["GET"]),
    Route("/v1/moestream/forecast", experts.forecast, methods=["GET"]),
)
"""What only the page asks, and goes with it."""


def make_app(state: State, keys: Sequence[str] = ()) -> ASGIApp:
    """The server's application: what uvicorn runs."""
    app = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in _GET.items()),
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in _POST.items()),
            *(() if state.options.no_page else (*page_routes(), *_PAGE)),
        ],
        exception_handlers={
            APIError: _on_error,
            MoestreamError: _on_error,
            HTTPException: _on_http_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.server = state
    return Outermost(Guard(app, state.options, keys), state)


class Outermost:
    """Tells the log of each request, and answers what was not foreseen."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return  # a server without a lifespan or sockets of its own
        began, status = time.perf_counter(), 0
        # As it was sent, so that nothing in it steers a terminal.
        asked = f"{scope['method']} {scope['raw_path'].decode('latin-1')}"

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            self._state.warn(f"{asked}: {type(error).__name__}: {error}")
            if not status:
                await _answer(error, scope)(scope, receive, noted)
        took = time.perf_counter() - began
        self._state.log(f"{asked} {status} {took:.3f} s")


async def _on_error(request: Request, error: Exception) -> Response:
    answer = api_error(error)
    if answer.status >= 500 and not isinstance(error, APIError):
        state_of(request).warn(f"{type(error).__name__}: {error}")
    return _answer(error, request.scope)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing here", 405: "this path has another method"}
    message = told.get(error.status_code, error.detail)
    made = APIError(error.status_code, message)
    made.headers.update(error.headers or {})
    return _answer(made, request.scope)


def _answer(error: Exception, scope: Scope) -> Response:
    answer = api_error(error)
    return JSON(answer.body_at(scope["path"]), answer.status, answer.headers)
