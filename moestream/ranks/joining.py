"""How the first rank opens a model together with the others: who says what when.

Owns the order, of which ``attending`` is the others' side. What is agreed on is ``hello``'s and
``division``'s, what is run ``far``'s.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from moestream.errors import ProfileError, RankError
from moestream.gguf import GGUFFile
from moestream.models import used_names
from moestream.profiles import Fingerprint
from moestream.ranks.content import Tell, hash_parts, require_same
from moestream.ranks.costs import PROGRAM_BYTES, Costs
from moestream.ranks.division import Machine, divide, lacking
from moestream.ranks.hello import Hello, require_alike
from moestream.ranks.launch import Launch, launched
from moestream.ranks.link import Link
from moestream.ranks.message import FRAME_BYTES, Kind, Message
from moestream.ranks.options import Options, Sharing, own_options, told
from moestream.ranks.profiles import own_profile, packed
from moestream.ranks.ring import Ring
from moestream.ranks.shared_engine import SharedEngine


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


def end_process(code: object) -> None:
    """End this process at once if it was joined with others, and these if it is the first.

    MLX's threads may wait for what does not come; an interpreter that ends would wait for them.
    """
    link = joined() if joined.cache_info().currsize else None
    if link is None:
        return
    if link.rank == 0:
        link.end()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def link_of(launch: Launch, ring: Ring) -> Link | None:
    """The link of a ring; None of one rank."""
    return Link(ring, launch.name) if ring.size > 1 else None


def open_shared(
    link: Link,
    model: str,
    path: Path,
    options: Options,
    sharing: Sharing = Sharing(),  # noqa: B008 - frozen
    tell: Tell = lambda done, total: None,
) -> SharedEngine:
    """On the first rank: open a model together with the others.

    ``model`` is what they find their file by; ``tell`` hears how far the comparison of files is.

    Raises:
        MoestreamError: a rank cannot, or has another model; or see ``Engine.open``.
    """
    if sharing.shares and len(sharing.shares) != link.size:
        raise RankError(
            f"--hosts-share has {len(sharing.shares)} amounts for {link.size} machines; give one "
            "for each"
        )
    if options.get("draft") == "mtp":
        raise RankError(
            "--draft mtp wants what the last layer makes of each token, and another machine has "
            "it; use --draft ngram"
        )
    try:
        return _open_shared(link, model, path, options, sharing, tell)
    except BaseException:
        with suppress(RankError):
            link.send(Message(Kind.CLOSE))
        raise


def _open_shared(
    link: Link, model: str, path: Path, options: Options, sharing: Sharing, tell: Tell
) -> SharedEngine:
    asked = {"model": model, "told": told(options), "shares": sharing.shares}
    options = own_options(options, sharing.shares, 0)
    with GGUFFile.open(path) as file:
        hello, costs = Hello.of(link.name(0), file, options), Costs.of(file, options)
        hellos = [Hello(**each) for each in ask(link, Kind.HELLO, hello.to_dict(), **asked)]
        parts = _divide(hellos, costs)
        fingerprint = _fingerprint(file, hello.context)
        profile = packed(options.get("profile"), fingerprint, file.path.name)
        _tell_division(link, parts, costs, verify=sharing.verify, profile=profile)
        if sharing.verify:
            _compare(link, file, hello.context, parts, tell)
        options = {**options, "profile": own_profile(profile, file, hello.context, parts[0])}
    engine = SharedEngine.open(path, **options, part=parts[0])
    try:
        ask(link, Kind.READY, [])
        engine.share(link, fingerprint)
    except BaseException:
        engine.close()
        raise
    return engine


def _tell_division(link: Link, parts: Sequence[range], costs: Costs, **more: Any) -> None:
    body = {
        "parts": [(part.start, part.stop) for part in parts],
        "frame_bytes": FRAME_BYTES + 4 * costs.row_size,
        **more,
    }
    link.send(Message(Kind.DIVISION, body))
    link.receive(Kind.DIVISION)


def _compare(link: Link, file: GGUFFile, context: int, parts: Sequence[range], tell: Tell) -> None:
    """See that all have the same bytes; each looks at what it will read, all at the same time.

    Raises:
        RankError: one has others.
    """
    here = hash_parts(file, context, parts[1:], tell)
    there = ask(link, Kind.CONTENT, "")[1:]
    require_same(here, there, [link.name(rank) for rank in range(1, link.size)])


def _fingerprint(file: GGUFFile, context: int) -> Fingerprint | None:
    """Of the whole model; None of one without experts."""
    file.restrict(used_names(file, context))
    try:
        return Fingerprint.of(file)
    except ProfileError:
        return None


def ask(link: Link, kind: Kind, own: Any, **body: Any) -> list[Any]:
    """Send a question around; return what all have answered, this rank first."""
    link.send(Message(kind, {"found": [own], **body}))
    return list(link.receive(kind).body["found"])


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
