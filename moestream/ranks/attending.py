"""What any rank but the first does: it opens its part of models, and runs it, until the end.

Owns the order, of which ``joining`` is the first rank's side. What is run is ``stage``'s.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moestream.engine.engine import Engine
from moestream.errors import MoestreamError
from moestream.gguf import GGUFFile
from moestream.ranks.content import hash_parts
from moestream.ranks.hello import Hello
from moestream.ranks.link import SILENCE_S, Link
from moestream.ranks.message import Kind, Message
from moestream.ranks.options import Options, own_options
from moestream.ranks.profiles import own_profile
from moestream.ranks.stage import Stage
from moestream.streaming.memory import keep_from_collector, return_freed_memory


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
        _tell(link, error)
        threading.Event().wait(SILENCE_S)  # until that has been told
        os._exit(1)
    link.flush()


def _tell(link: Link, error: Exception) -> None:
    """Have all ranks end, if they have not heard why yet."""
    expected = isinstance(error, MoestreamError | OSError)
    what = f"{error}" if expected else f"{type(error).__name__}: {error}; please report it"
    link.fail(f"{link.name(link.rank)}: {what}")


class _Closed(Exception):  # noqa: N818 - no error
    """The first rank needs the model no longer."""


class _Ended(Exception):  # noqa: N818 - no error
    """The first rank has ended."""


def _attend_one(
    link: Link, options: Options, resolve: Callable[[str], Path], message: Message
) -> None:
    """Load a part of one model, and run it until it is closed."""
    body = message.body
    options = own_options({**options, **body["told"]}, body["shares"], link.rank)
    path = resolve(body["model"])
    with GGUFFile.open(path) as file:
        hello = Hello.of(link.name(link.rank), file, options)
        body["found"].append(hello.to_dict())
        link.send(message)
        division = _next(link, Kind.DIVISION)
        link.send(division)
        part = range(*division.body["parts"][link.rank])
        if division.body["verify"]:
            (content,) = hash_parts(file, hello.context, [part])
            _answer(link, _next(link, Kind.CONTENT), content)
        profile = own_profile(division.body["profile"], file, hello.context, part)
    return_freed_memory()
    with Engine.open(path, **{**options, "profile": profile}, part=part) as engine:
        keep_from_collector()
        link.send(_next(link, Kind.READY))
        with Stage(engine, link) as stage:
            try:
                while True:
                    stage.do(_next(link, Kind.RUN, Kind.COUNT, Kind.COUNTS, Kind.PROMPTS))
            except (_Closed, _Ended):
                raise
            except Exception as error:
                _tell(link, error)  # before what is under way here has ended
                stage.close(write=False)
                raise


def _answer(link: Link, question: Message, own: object) -> None:
    question.body["found"].append(own)
    link.send(question)


def _next(link: Link, *kinds: Kind) -> Message:
    message = link.receive(*kinds, Kind.CLOSE, Kind.END)
    if message.kind is Kind.END:
        raise _Ended
    if message.kind is Kind.CLOSE:
        link.send(message)
        raise _Closed
    return message
