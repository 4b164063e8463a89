"""``--version``: which moestream this is, and what it was built and runs with."""

import platform
from typing import Any

import click

from moestream import __version__, ui

_LIBRARIES = ("numpy", "gguf", "tokenizers", "huggingface_hub", "mlx")


def version_option(body: Any) -> Any:
    """Add ``--version``, which prints and ends."""
    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print,
        help="Show the version and the details of the build, and exit.",
    )(body)


def _print(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ui.print_line(f"moestream, version {__version__}")
        for name, detail in build_details():
            ui.print_line(f"{name}: {detail}")
        ctx.exit()


def build_details() -> list[tuple[str, str]]:
    """Labels and values: the interpreter, the system, the compiled kernels, the libraries."""
    libraries = [f"{name} {found}" for name in _LIBRARIES if (found := library_version(name))]
    return [
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("kernels", ", ".join(instruction_sets()) or "not compiled: only --backend reference runs"),
        ("libraries", ", ".join(libraries)),
    ]


def library_version(name: str) -> str | None:
    """The version of an installed package, None if it is not there."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def instruction_sets() -> list[str]:
    """The instruction sets that the compiled kernels can use here; none if there are no kernels."""
    try:
        from moestream import _native
    except ImportError:
        return []
    return list(_native.available_isas())
