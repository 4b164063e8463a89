"""Several machines to plan for, and the link between them."""

from typing import TYPE_CHECKING

import click

from moestream.cli.command import option
from moestream.cli.options.memory import amounts
from moestream.errors import RankError

if TYPE_CHECKING:
    from moestream.forecast.pipeline import Link

_DEFAULT = "1G"


def _link(ctx: click.Context, param: click.Parameter, text: str | None) -> "Link | None":
    from moestream.forecast.pipeline import link_of

    try:
        return None if text is None else link_of(text)
    except RankError as error:
        raise click.BadParameter(str(error), ctx, param) from None


machines_option = option(
    "--machines",
    section="Several machines",
    callback=amounts,
    metavar="AMOUNT,...",
    help="Share the layers among machines of so much memory, each as fast as this one: 16G,16G. "
    "See docs/machines.md.",
)
"""The body gets ``machines``, in bytes."""
link_option = option(
    "--link",
    section="Several machines",
    callback=_link,
    show_default=_DEFAULT,
    metavar="RATE[,LATENCY]",
    help="What is between them, in bits a second, and how long a byte takes one way: 1G,0.2ms. "
    "Without a latency, that of Ethernet (1G, 10G) or Thunderbolt (40G).",
)
"""The body gets ``link``, or None."""


def link_or_default(link: "Link | None") -> "Link":
    """The link that was named, or a usual one."""
    from moestream.forecast.pipeline import link_of

    return link or link_of(_DEFAULT)
