"""What the model is asked: the options of a prompt, and where its text comes from.

Owns the checks that need no model. Every command that takes one prompt uses this.
"""

import functools
import os
import select
import stat
import sys
from pathlib import Path
from typing import Any

import click

from moestream import ui
from moestream.chat.prompt import Prompt
from moestream.chat.thinking import Thinking
from moestream.cli.command import Body, apply, file_option, option
from moestream.cli.options.fields import field_options
from moestream.folders import read_bytes
from moestream.ranks.launch import follows, launched

STANDARD_INPUT = Path("-")
_SILENT_S = 2.0
"""After it, one is told what is waited for."""


def prompt_options(body: Body) -> Body:
    """Add the options of a prompt; ``body`` gets one ``prompt``, a ``Prompt``."""

    @functools.wraps(body)
    def with_prompt(
        *args: Any,
        words: tuple[str, ...],
        prompt: str | None,
        file: Path | None,
        system_prompt: str | None,
        raw: bool,
        chat_template: str | None,
        special: bool,
        reasoning_effort: str | None,
        chat_template_kwargs: dict[str, Any] | None,
        **kwargs: Any,
    ) -> None:
        if raw and (reasoning_effort is not None or chat_template_kwargs is not None):
            raise click.UsageError(
                "--raw uses no chat template, so it takes no --reasoning-effort or "
                "--chat-template-kwargs"
            )
        if raw and (system_prompt is not None or chat_template is not None):
            raise click.UsageError(
                "--raw uses no chat template, so it takes no --system-prompt or --chat-template"
            )
        if words and prompt is not None:
            raise click.UsageError("the prompt is given twice: after MODEL, and with --prompt")
        text = "" if follows() else _read(" ".join(words) if words else prompt, file)
        if not follows():
            require_text(text.strip() and text, "the prompt")
        if chat_template is not None:
            require_text(chat_template, "--chat-template")
        thinking = Thinking(reasoning_effort, chat_template_kwargs)
        asked = Prompt(text, system_prompt, raw, chat_template, special, thinking)
        body(*args, prompt=asked, **kwargs)

    return click.argument("words", nargs=-1, metavar="[PROMPT]")(
        apply(_PROMPT_OPTIONS, system_options(with_prompt))
    )


def require_text(text: str, what: str) -> None:
    """Reject text that is empty, or came as bytes that are not UTF-8.

    Python passes such bytes of an argument on as lone surrogates.

    Raises:
        click.UsageError: it is so; ``what`` names the text.
    """
    if not text:
        raise click.UsageError(f"{what} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise click.UsageError(f"{what} is not UTF-8 text")


def _read(prompt: str | None, file: Path | None) -> str:
    if prompt is not None and file is not None:
        raise click.UsageError("--prompt and --file exclude each other; pass one of them")
    if prompt is not None:
        material = _piped()
        return f"{material}\n\n{prompt}" if material.strip() else prompt
    if file in (None, STANDARD_INPUT) and launched() is not None:
        raise click.UsageError(
            "of several machines none has a standard input that ends; give the prompt with -p TEXT "
            "or -f FILE"
        )
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError(
            "there is no prompt; give one with -p TEXT, -f FILE, or on standard input"
        )
    return read_text(file or STANDARD_INPUT)


def _piped() -> str:
    """What is piped in beside a prompt; nothing where standard input is no pipe and no file.

    Nor where it is ``mlx.launch``'s, which never ends it.
    """
    if sys.stdin is None or launched() is not None:
        return ""
    kind = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
        return ""
    quiet = click.get_current_context().params.get("quiet")
    if not quiet and not select.select([sys.stdin], [], [], _SILENT_S)[0]:
        ui.note("waiting for standard input; end it with Ctrl-D, or give < /dev/null")
    return read_text(STANDARD_INPUT)


def read_text(file: Path) -> str:
    """Read the text of a file, or standard input.

    Raises:
        click.UsageError: it is not UTF-8, or standard input is closed.
        OSError: it cannot be read.
    """
    if file != STANDARD_INPUT:
        return _decode(read_bytes(file), str(file))
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return _decode(read_bytes(sys.stdin.buffer), "standard input")


def _decode(data: bytes, origin: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{origin} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        ) from None
    return text.removesuffix("\n")  # the one that ends a file's last line, as llama.cpp does


def system_options(body: Body) -> Body:
    """Add the system prompt's options, a text or a file; ``body`` gets one ``system_prompt``."""

    @functools.wraps(body)
    def with_system(
        *args: Any, system_prompt: str | None, system_file: Path | None, **kwargs: Any
    ) -> None:
        if system_prompt is not None and system_file is not None:
            raise click.UsageError(
                "--system-prompt and --system-prompt-file exclude each other; pass one of them"
            )
        if system_file is not None and not follows():
            system_prompt = read_text(system_file)
        if system_prompt:
            require_text(system_prompt, "the system prompt")
        body(*args, system_prompt=system_prompt, **kwargs)

    return apply(_SYSTEM_OPTIONS, with_system)


_SYSTEM_OPTIONS = (
    option(
        "-sys",
        "--system-prompt",
        section="Prompt",
        metavar="TEXT",
        help="Instructions that come first.",
    ),
    file_option(
        "-sysf",
        "--system-prompt-file",
        "system_file",
        section="Prompt",
        rare=True,
        help="The same, from a file.",
    ),
)
template_option = option(
    "--chat-template",
    section="Prompt",
    metavar="TEMPLATE",
    help="A built-in one by name, a jinja file, or jinja itself.",
)
special_option = option(
    "--special",
    section="Prompt",
    rare=True,
    is_flag=True,
    help="Read special tokens in what you say, as <|im_end|>; otherwise all of it is text.",
)
_PROMPT_OPTIONS = (
    option(
        "-p",
        "--prompt",
        section="Prompt",
        metavar="TEXT",
        help="The prompt; text that is piped in stands before it.",
    ),
    file_option(
        "-f",
        "--file",
        section="Prompt",
        dash=True,
        help="A file with the prompt; - is standard input.",
    ),
    option("--raw", section="Prompt", is_flag=True, help="Continue the text: no chat template."),
    template_option,
    special_option,
    *field_options(Thinking, "Prompt"),
)
