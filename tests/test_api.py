"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import moestream


def test_every_public_name_exists() -> None:
    for name in moestream.__all__:
        assert getattr(moestream, name).__name__ == name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="Motor"):
        moestream.Motor  # noqa: B018


@pytest.mark.parametrize("asked", ["streaming", "profile"])
def test_streaming_without_a_budget_is_no_silent_nothing(asked: str) -> None:
    with pytest.raises(ValueError, match="need a budget"):
        moestream.Engine.open("m.gguf", **{asked: object()})


@pytest.mark.parametrize("heavy", ["numpy", "tokenizers", "jinja2", "gguf"])
def test_importing_the_package_loads_nothing_heavy(heavy: str) -> None:
    code = f"import moestream, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
