"""Options that name several machines."""

import click

from moestream.cli.command import Body, apply, option
from moestream.ranks.launch import launched

_SECTION = "Several machines"


def _hosts(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if names and (len(names) < 2 or not all(names)):
        raise click.BadParameter("two addresses or more are expected, such as A,B", ctx, param)
    return names


def _model(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    if name is not None and not ctx.params.get("hosts") and launched() is None:
        raise click.BadParameter("it is looked for on --hosts A,B", ctx, param)
    return name


def _port(ctx: click.Context, param: click.Parameter, port: int | None) -> int | None:
    if port is not None and not ctx.params.get("hosts") and launched() is None:
        raise click.BadParameter("it is for --hosts A,B", ctx, param)
    return port


def hosts_options(body: Body) -> Body:
    """Add them; ``body`` gets ``hosts``, ``port`` and ``model``."""
    return apply(_OPTIONS, body)


_OPTIONS = (
    option(
        "--hosts",
        section=_SECTION,
        shared=False,
        is_eager=True,
        callback=_hosts,
        metavar="A,B,...",
        help="Look at these, and at how fast they talk, as mlx.launch takes them.",
    ),
    option(
        "--model",
        section=_SECTION,
        shared=False,
        callback=_model,
        metavar="MODEL",
        help="See that all of them have the same file of this model.",
    ),
    option(
        "--starting-port",
        "port",
        section=_SECTION,
        shared=False,
        rare=True,
        type=click.IntRange(1, 65535),
        callback=_port,
        help="The first host listens there, the others at those after it.  [default: 32323]",
    ),
)
