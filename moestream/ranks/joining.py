"""How ranks open a model together: who says what when, from the first word to the last.

Owns the order, on the first rank and on the others. What is agreed on is ``hello``'s and
``division``'s, what is run ``far``'s and ``stage``'s.
"""

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from moestream.engine.engine import Engine, context_of
from moestream.errors import MoestreamError, RankError
from moestream.gguf import GGUFFile
from moestream.layers.cache import RecurrentShape
from moestream.models import read_config
from moestream.ranks.costs import PROGRAM_BYTES, Costs
from moestream.ranks.division import Machine, divide, lacking
from moestream.ranks.far import Away, FarLayers, Log, MirroredCaches
from moestream.ranks.hello import Hello, require_alike
from moestream.ranks.launch import Launch, launched
from moestream.ranks.link import SILENCE_S, Link
from moestream.ranks.message import FRAME_BYTES, Kind, Message
from moestream.ranks.ring import Ring
from moestream.ranks.stage import Stage

Options = Mapping[str, Any]
"""What ``Engine.open`` takes."""
_TOLD = ("context_length", "threads", "backend", "cache_type_k", "cache_type_v", "budget")
"""Options that the first rank tells the others: a comparison of runs has several of them."""


class SharedEngine(Engine):
    """An engine with the first layers of a model of which other ranks have the rest."""

    link: Link | None = None
    away = Away()
    """What its rows took elsewhere."""

    def share(self, link: Link) -> None:
        """Send what leaves the layers here along a link."""
        config, log = self.config, Log()
        if config.part is None:
            raise ValueError("the engine has all layers; open it with a part of them")
        stop = config.part.stop
        far = config.state_shapes()[stop:]
        recurrent = any(isinstance(shape, RecurrentShape) and shape.arrays for shape in far)
        far_layers = FarLayers(link, self.backend, log, recurrent=recurrent)
        self.model.layers[stop:], self.away = [far_layers], far_layers.away
        self.caches = MirroredCaches(self.caches, self.kv_types, log)
        self.link = link

    def close(self) -> None:
        """Unmap the file here and there.

        Raises:
            RankError: a rank has failed, and nothing has said so yet.
        """
        link, self.link = self.link, None
        super().close()
        if link is not None:
            link.send(Message(Kind.CLOSE))


@cache
def joined() -> Link | None:
    """The link to other ranks, made when it is first asked for; None in a process that is alone.

    Raises:
        RankError: they cannot be joined.
    """
    launch = launched()
    if launch is None:
        return None
    link = link_of(launch, Ring.join(launch))
    if link is not None and link.rank == 0:
        atexit.register(link.end)
    return link


def link_of(launch: Launch, ring: Ring) -> Link | None:
    """The link of a ring; None of one rank."""
    return Link(ring, launch.name) if ring.size > 1 else None


def open_shared(
    link: Link, model: str, path: Path, options: Options, shares: Sequence[str] = ()
) -> SharedEngine:
    """On the first rank: open a model together with the others.

    ``model`` is what they find their file by, ``shares`` the budgets of all, in order.

    Raises:
        MoestreamError: a rank cannot, or has another model; or see ``Engine.open``.
    """
    if shares and len(shares) != link.size:
        raise RankError(
            f"--hosts-share has {len(shares)} amounts for {link.size} machines; give one for each"
        )
    if options.get("profile") is not None:
        raise RankError("--profile is of a whole model; leave it out where machines share one")
    if options.get("draft") == "mtp":
        raise RankError(
            "--draft mtp wants what the last layer makes of each token, and another machine has "
            "it; use --draft ngram"
        )
    try:
        return _open_shared(link, model, path, options, shares)
    except BaseException:
        with suppress(RankError):
            link.send(Message(Kind.CLOSE))
        raise


def _open_shared(
    link: Link, model: str, path: Path, options: Options, shares: Sequence[str]
) -> SharedEngine:
    told = {name: options[name] for name in _TOLD if name in options}
    options = _own(options, shares, 0)
    with GGUFFile.open(path) as file:
        hello, costs = _look(link, file, options), Costs.of(file, options)
        hellos = _ask(link, Kind.HELLO, hello.to_dict(), model=model, told=told, shares=[*shares])
        parts = _divide([Hello(**each) for each in hellos], costs)
    frame = FRAME_BYTES + 4 * costs.row_size
    body = {"parts": [(part.start, part.stop) for part in parts], "frame_bytes": frame}
    link.send(Message(Kind.DIVISION, body))
    link.receive(Kind.DIVISION)
    engine = SharedEngine.open(path, **options, part=parts[0])
    try:
        _ask(link, Kind.READY, [])
        engine.share(link)
    except BaseException:
        engine.close()
        raise
    return engine


def attend(link: Link, options: Options, resolve: Callable[[str], Path]) -> None:
    """On any other rank: do what the first wants until it ends.

    ``resolve`` finds this machine's file of a model. What goes wrong is told on the first rank, and
    ends this process.
    """
    try:
        while (message := link.receive(Kind.HELLO, Kind.END)).kind is Kind.HELLO:
            with suppress(_Closed):
                _attend_one(link, options, resolve, message)
    except _Ended:
        pass
    except Exception as error:
        expected = isinstance(error, MoestreamError | OSError)
        what = f"{error}" if expected else f"{type(error).__name__}: {error}; please report it"
        link.fail(f"{link.name(link.rank)}: {what}")
        threading.Event().wait(SILENCE_S)  # until that has been told
        os._exit(1)
    link.flush()


class _Closed(Exception):  # noqa: N818 - no error
    """The first rank needs the model no longer."""


class _Ended(Exception):  # noqa: N818 - no error
    """The first rank has ended."""


def _attend_one(
    link: Link, options: Options, resolve: Callable[[str], Path], message: Message
) -> None:
    """Load a part of one model, and run it until it is closed."""
    body = message.body
    options = _own({**options, **body["told"]}, body["shares"], link.rank)
    path = resolve(body["model"])
    with GGUFFile.open(path) as file:
        body["found"].append(_look(link, file, options).to_dict())
    link.send(message)
    division = _next(link, Kind.DIVISION)
    link.send(division)
    part = range(*division.body["parts"][link.rank])
    with Engine.open(path, **options, part=part) as engine:
        link.send(_next(link, Kind.READY))
        stage = Stage(engine, link)
        while True:
            stage.run(_next(link, Kind.RUN))


def _next(link: Link, kind: Kind) -> Message:
    message = link.receive(kind, Kind.CLOSE, Kind.END)
    if message.kind is Kind.END:
        raise _Ended
    if message.kind is Kind.CLOSE:
        link.send(message)
        raise _Closed
    return message


def _ask(link: Link, kind: Kind, own: Any, **body: Any) -> list[Any]:
    """Send a question around; return what all have answered, this rank first."""
    link.send(Message(kind, {"found": [own], **body}))
    return list(link.receive(kind).body["found"])


def _own(options: Options, shares: Sequence[str], rank: int) -> Options:
    """The options of one rank, whose budget is its share."""
    return {**options, "budget": shares[rank]} if shares else options


def _look(link: Link, file: GGUFFile, options: Options) -> Hello:
    context = context_of(read_config(file), options.get("context_length"))
    backend, budget = options.get("backend", "auto"), options.get("budget")
    return Hello.of(link.name(link.rank), file, backend, context, budget)


def _divide(hellos: Sequence[Hello], costs: Costs) -> list[range]:
    """Say who gets which layers.

    Raises:
        RankError: they do not fit together, or one has too little memory.
    """
    require_alike(hellos)
    machines = [Machine(each.memory_bytes - PROGRAM_BYTES, each.speed) for each in hellos]
    parts = divide(costs.layers, costs.ends, machines)
    for rank, (part, machine, hello) in enumerate(zip(parts, machines, hellos, strict=True)):
        lacks = lacking(part, costs.layers, None if rank else costs.ends, machine)
        if lacks > 0:
            needs = hello.memory_bytes + lacks
            raise RankError(
                f"{hello.name} has too little memory: {_mebibytes(hello.memory_bytes)} for layers "
                f"{part.start} to {part.stop - 1}, of which {_mebibytes(needs)} are always in "
                "memory. Give it more with --hosts-share, take another machine in, or a shorter "
                "context with -c"
            )
    return parts


def _mebibytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // (1 << 20))}M"
