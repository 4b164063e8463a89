"""What the page asks of the experts: the stream of what they do, profiles, forecasts.

Owns these endpoints and their words. What is counted is ``residency``'s, profiles are
``moestream.profiles``', and forecasts ``moestream.forecast``'s.
"""

import asyncio
from contextlib import aclosing

import numpy as np
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from moestream.errors import ProfileError
from moestream.forecast.demand import read_demand
from moestream.forecast.hits import default_hits
from moestream.forecast.outlook import Grounds, Point, look_ahead
from moestream.machine.speeds import known_speeds
from moestream.profiles import Fingerprint, Profile, write_profile
from moestream.profiles.names import SUFFIX, load_profile, profile_names, profile_path
from moestream.server.body import JSON, read
from moestream.server.errors import APIError
from moestream.server.experts_schema import (
    MOST_COUNT,
    Forecast,
    ForecastPoint,
    ProfileCounts,
    ProfileRequest,
    Profiles,
    ProfileSaved,
    Told,
)
from moestream.server.model import Model
from moestream.server.onlookers import News, Onlookers
from moestream.server.sse import HEADERS, event, listening
from moestream.server.state import state_of

_POINTS = 20
"""Budgets that are looked at, from one that holds few experts to one that holds all."""


class Watching:
    """An ASGI response: a stream of events, until the client leaves or the server ends."""

    def __init__(self, onlookers: Onlookers) -> None:
        self._onlookers = onlookers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what happens."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        telling = asyncio.create_task(self._tell(send))
        try:
            async with listening(telling.cancel, receive):
                await asyncio.wait((telling,))
        finally:
            telling.cancel()
        if not telling.cancelled():
            telling.result()
            await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Send) -> None:
        async with aclosing(self._onlookers.listen()) as heard:
            async for news in heard:
                part = {"type": "http.response.body", "body": _told(news), "more_body": True}
                await send(part)


def _told(news: News | None) -> bytes:
    if news is None:
        return b": ping\n\n"
    ((name, value),) = news.items()
    return event(value, name)


async def residency(request: Request) -> Watching:
    """What the experts do, as it goes on."""
    return Watching(_model(request).onlookers)


async def profiles(request: Request) -> JSON:
    """Names of the profiles that are kept on this machine, and of those that fit this model."""
    model = _model(request)
    return _json(Profiles(profiles=await asyncio.to_thread(_fitting, model)))


async def profile(request: Request) -> JSON:
    """What one profile counted, in the words in which one is saved."""
    model, name = _model(request), request.path_params["name"]
    found = await asyncio.to_thread(_load, name, model)
    here = [found.layers.index(layer) for layer in model.onlookers.collector.sizes]
    uses = found.uses[here].tolist()
    return _json(ProfileCounts(name=name, saved=found.saved, tokens=found.tokens, uses=uses))


async def save_profile(request: Request) -> JSON:
    """Keep what was counted as a profile."""
    model, asked = _model(request), await read(request, ProfileRequest)
    _refuse_shared(model, "serve --save-profile FILE keeps a profile of all layers")
    saved = await asyncio.to_thread(_save, asked, model)
    return _json(ProfileSaved(name=asked.name, saved=saved.saved, tokens=saved.tokens))


async def forecast(request: Request) -> JSON:
    """What this model would do within other budgets, as ``plan`` says."""
    model = _model(request)
    _refuse_shared(model, "moestream plan MODEL --machines A,B,... foresees them together")
    return _json(await asyncio.to_thread(_forecast, model))


def _json(told: Told) -> JSON:
    return JSON(told.model_dump())


def _model(request: Request) -> Model:
    model = state_of(request).model
    engine = model.engine
    elsewhere = engine.machines > 1 and engine.config.num_experts
    if not elsewhere and not model.onlookers.collector.sizes:
        raise APIError(404, "this model has no experts")
    return model


def _refuse_shared(model: Model, instead: str) -> None:
    """Refuse what would be told of the first machine's layers as if they were all."""
    if (machines := model.engine.machines) > 1:
        told = f"{machines} machines share the model, and the page knows the layers of one"
        raise APIError(400, f"{told}; {instead}")


def _checked_name(name: str) -> str:
    """A name, and no path: nothing is read or written but in the profiles' folder."""
    try:
        profile_path(name)
    except ProfileError as error:
        raise APIError(400, str(error), param="name") from None
    if name.endswith(SUFFIX):
        raise APIError(400, f"{name!r} is a path; give a name", param="name")
    return name


def _fitting(model: Model) -> list[str]:
    fingerprint, found = model.engine.fingerprint(), []
    for name in profile_names():
        try:
            if load_profile(name).fingerprint.difference(fingerprint) is None:
                found.append(name)
        except ProfileError:
            continue  # a damaged file is the command line's to tell of
    return found


def _load(name: str, model: Model) -> Profile:
    if _checked_name(name) not in profile_names():
        raise APIError(404, f"no profile is called {name!r}", param="name")
    try:
        found = load_profile(name)
        found.require(model.engine.fingerprint(), model.name)
    except ProfileError:
        raise APIError(400, f"profile {name!r} is damaged, or of another model") from None
    return found


def _save(asked: ProfileRequest, model: Model) -> Profile:
    name, fingerprint = _checked_name(asked.name), Fingerprint.of(model.engine.file)
    shape = (len(fingerprint.expert_bytes), fingerprint.num_experts)
    if [len(row) for row in asked.uses] != [shape[1]] * shape[0]:
        raise APIError(400, f"uses must have {shape[0]} layers of {shape[1]} experts", param="uses")
    if any(not 0 <= count < MOST_COUNT for row in asked.uses for count in row):
        raise APIError(400, "uses must be whole numbers of 0 and more", param="uses")
    if not asked.replace and name in profile_names():
        raise APIError(409, f"a profile is called {name!r} already", param="name")
    uses = np.array(asked.uses, np.int64)
    made = Profile(
        name=name,
        model=model.engine.file.path.name,
        fingerprint=fingerprint,
        tokens=asked.tokens,
        uses=uses,
        decayed=uses.astype(np.float64),
        options={"command": "serve", "page": True},
    )
    if not uses.any():
        raise APIError(400, "no expert was used, so there is nothing to keep", param="uses")
    try:
        return write_profile(made, profile_path(name))
    except ProfileError:
        raise APIError(500, f"the profile {name!r} could not be written") from None


def _forecast(model: Model) -> Forecast:
    """Speeds of this machine that are not known yet are measured, which takes some seconds."""
    engine = model.engine
    plan = engine.plan or engine.plan_memory("auto")
    demand = read_demand(engine.file, *engine.kv_types)
    machine, disk = known_speeds(engine.file, {*demand.dense_bytes, *demand.expert_bytes})
    shares = [(n + 1) / _POINTS for n in range(_POINTS)]
    least, total = plan.least_bytes, plan.total_expert_bytes
    wanted = {least, *(plan.other_bytes + int(share * total) for share in shares)}
    hits = default_hits(engine.config.num_experts or 0)
    outlook = look_ahead(
        plan,
        Grounds(demand, machine, disk, hits, engine.context_length),
        budgets=tuple(sorted(n_bytes for n_bytes in wanted if n_bytes >= least)),
    )
    now = engine.plan.budget_bytes if engine.plan else None
    return Forecast(points=[_point(point) for point in outlook.asked], now_bytes=now)


def _point(point: Point) -> ForecastPoint:
    speed = point.forecast
    return ForecastPoint(
        budget_bytes=point.plan.budget_bytes,
        experts_share=point.share,
        case=point.case,
        tps=speed.tps,
        low_tps=speed.low_tps,
        high_tps=speed.high_tps,
        hit_rate=speed.hit_rate,
        read_bytes=speed.read_bytes,
    )
