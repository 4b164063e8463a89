"""The options that say what ``moestream bench`` measures, and how lists of them are read.

Names and defaults are llama-bench's where it has them.
"""

from collections.abc import Callable

import click

from moestream.cli.command import Body, apply, option


def _counts(minimum: int) -> Callable[..., tuple[int, ...]]:
    """Read ``512,1024``, given once or several times."""

    def convert(
        ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
    ) -> tuple[int, ...]:
        parts = [part.strip() for text in texts for part in text.split(",")]
        if bad := [part for part in parts if not _is_count(part, minimum)]:
            raise click.BadParameter(
                f"{bad[0]!r} is not a whole number of at least {minimum}; several are separated "
                "by commas",
                ctx,
                param,
            )
        return tuple(dict.fromkeys(map(int, parts)))

    return convert


def _pairs(
    ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Read ``512,128``, a prompt and what is decoded after it."""
    pairs = []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 2 or not all(_is_count(part, 1) for part in parts):
            raise click.BadParameter(
                f"{text!r} is not a pair of numbers of at least 1, such as 512,128", ctx, param
            )
        pairs.append((int(parts[0]), int(parts[1])))
    return tuple(dict.fromkeys(pairs))


def _is_count(text: str, minimum: int) -> bool:
    return text.isascii() and text.isdigit() and minimum <= int(text) < 2**31


def _list(
    *names: str, default: str | None, minimum: int, help: str, section: str = "Tests"
) -> Callable[[Body], Body]:
    return option(
        *names,
        section=section,
        multiple=True,
        default=() if default is None else (default,),
        show_default=default is not None,
        callback=_counts(minimum),
        metavar="N,...",
        help=help,
    )


def test_options(body: Body) -> Body:
    """Add what is measured, how often, and from where on."""
    return apply(_TESTS, body)


_TESTS = (
    _list(
        "-p",
        "--n-prompt",
        default="512",
        minimum=0,
        help="Tokens of prompt; 0 measures no prefill.",
    ),
    _list(
        "-n",
        "--n-gen",
        default="128",
        minimum=0,
        help="Tokens to decode; 0 measures no decoding.",
    ),
    option(
        "-pg",
        "pairs",
        section="Tests",
        multiple=True,
        callback=_pairs,
        metavar="PP,TG",
        help="A prompt and decoding after it, measured as one; may be given several times.",
    ),
    _list("-d", "--n-depth", default="0", minimum=0, help="Tokens of context before each test."),
    option(
        "-r",
        "--repetitions",
        section="Tests",
        type=click.IntRange(1, 10_000),
        default=5,
        metavar="N",
        help="Times that each test is measured.",
    ),
    option(
        "--warmup/--no-warmup",
        "warm_up",
        section="Tests",
        default=True,
        help="Run each test once, shortened, before it is measured.",
    ),
    option(
        "--cold",
        section="Tests",
        is_flag=True,
        help="Begin each repetition as after a restart: the model opened anew, its file's pages "
        "dropped, no warm-up.",
    ),
    option(
        "--tokens",
        "source",
        section="Tests",
        type=click.Choice(["text", "random"]),
        default="text",
        help="Run prose and what the model says to it, or random tokens as llama-bench does: those "
        "are routed to all experts alike.",
    ),
)
threads_option = _list(
    "-t",
    "--threads",
    default=None,
    minimum=1,
    section="Engine",
    help="CPU threads; by default one a core.",
)
"""Add numbers of threads, of which all are measured."""
