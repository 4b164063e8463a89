"""What the server says of itself: health, models, properties, places; and what it has not."""

import asyncio
from typing import Any, NoReturn

from starlette.requests import Request

from moestream import __version__
from moestream.server.activity import Sequence
from moestream.server.body import JSON
from moestream.server.errors import APIError, busy
from moestream.server.model import Model
from moestream.server.openai.told import settings
from moestream.server.schema import description
from moestream.server.state import state_of

EMBEDDINGS = ("/v1/embeddings", "/embeddings", "/embedding")
RERANKING = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")


async def health(request: Request) -> JSON:
    """Whether the model is there."""
    state = state_of(request)
    if state.phase == "closing":
        raise busy("the server is closing")
    if state.phase == "loading":
        raise busy("Loading model")
    return JSON({"status": "ok"})


async def models(request: Request) -> JSON:
    """The one model; while it loads, none."""
    state = state_of(request)
    data = [] if state.phase == "loading" else [_model(state.model)]
    return JSON({"object": "list", "data": data})


async def model(request: Request) -> JSON:
    """The model by one of its names."""
    found = state_of(request).model
    if request.path_params["name"] not in found.names:
        raise APIError(404, f"there is no such model here, but {found.name}", param="model")
    return JSON(_model(found))


def _model(model: Model) -> dict[str, Any]:
    config, file = model.engine.config, model.engine.file
    return {
        "id": model.name,
        "aliases": list(model.names),
        "object": "model",
        "created": model.created,
        "owned_by": "moestream",
        "meta": {
            "n_vocab": model.tokenizer.vocab_size,
            "n_ctx": model.context,
            "n_ctx_train": config.context_length,
            "n_embd": config.hidden_size,
            "size": sum(each.n_bytes for each in file.tensors.values()),
        },
    }


async def props(request: Request) -> JSON:
    """llama-server's properties, as far as they are ours too."""
    state = state_of(request)
    model = state.model
    tokenizer, defaults = model.tokenizer, model.defaults

    def text(id: int | None) -> str:
        return "" if id is None else tokenizer.token_bytes(id).decode(errors="replace")

    return JSON(
        {
            "default_generation_settings": {
                "params": settings(defaults.sampling, defaults.max_tokens),
                "n_ctx": model.context,
            },
            "total_slots": state.options.parallel,
            "model_alias": model.name,
            "model_path": model.engine.file.path.name,
            "modalities": {"vision": False, "video": False, "audio": False},
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
            "chat_template": model.template_source,
            "bos_token": text(tokenizer.bos_id),
            "eos_token": text(tokenizer.eos_id),
            "build_info": f"moestream {__version__}",
            "is_sleeping": False,
        }
    )


async def slots(request: Request) -> JSON:
    """The places, and which sequence is in each; nothing of what it says."""
    state = state_of(request)
    context, parallel = state.model.context, state.options.parallel
    running = state.activity.running[:parallel]
    if request.query_params.get("fail_on_no_slot") and len(running) == parallel:
        raise busy("no slot available")
    found: list[dict[str, Any]] = [
        {
            "id": place,
            "n_ctx": context,
            "speculative": False,
            "is_processing": True,
            "id_task": each.number,
            "n_prompt_tokens": len(each.job.prompt),
            "n_prompt_tokens_processed": each.read,
            "n_prompt_tokens_cache": each.cached,
            "next_token": [
                {"has_next_token": True, "n_remain": _left(each), "n_decoded": each.made}
            ],
        }
        for place, each in enumerate(running)
    ]
    idle = range(len(found), parallel)
    found += [
        {"id": place, "n_ctx": context, "speculative": False, "is_processing": False}
        for place in idle
    ]
    return JSON(found)


def _left(sequence: Sequence) -> int:
    """Tokens that it may still have; -1 where nothing was said of it."""
    most = sequence.job.max_tokens
    return -1 if most is None else most - sequence.made


async def openapi(request: Request) -> JSON:
    """A description of all of this for programs."""
    page = not state_of(request).options.no_page
    return JSON(await asyncio.to_thread(description, page=page))


async def no_embeddings(request: Request) -> NoReturn:
    """Say that there are none."""
    raise APIError(501, "moestream runs models that write text; it has no embeddings")


async def no_reranking(request: Request) -> NoReturn:
    """Say that there is none."""
    raise APIError(501, "moestream runs models that write text; it does not rerank")
