"""Choosing the MLX backend, which needs no MLX."""

import importlib.util
import platform
import sys

import pytest

from moestream import backends
from moestream.errors import UnsupportedModelError


def test_without_mlx_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("moestream.backends.mlx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(UnsupportedModelError, match=r'pip install "\.\[mlx\]"'):
        backends.open_backend("mlx")


@pytest.mark.parametrize(
    ("system", "machine", "installed", "expected"),
    [
        ("darwin", "arm64", True, "mlx"),
        ("darwin", "arm64", False, "cpu"),
        ("darwin", "x86_64", True, "cpu"),
        ("linux", "aarch64", True, "cpu"),
    ],
)
def test_auto_is_mlx_on_apple_silicon(system, machine, installed, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    assert backends.default_backend() == expected
