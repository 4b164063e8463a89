"""A wheel has all that a user needs beside the compiled code, and what is in it works."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("scikit_build_core", reason="needs scikit-build-core")
pytestmark = pytest.mark.slow
TREE = Path(__file__).parents[1]
PAGE = TREE / "moestream" / "server" / "page"
KINDS = (".html", ".js", ".css", ".svg")
ROUTES = "from moestream.server.page import page_routes; print(*(r.path for r in page_routes()))"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, without its compiled part."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", str(TREE), "--no-deps", "--no-build-isolation", "-C", "wheel.cmake=false"]
    subprocess.run([sys.executable, "-m", "pip", "-q", *build, "-w", folder], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / "in")
    return folder / "in"


def test_every_file_of_the_page_is_in_it_and_served(unpacked: Path) -> None:
    there = {
        file.name for file in PAGE.iterdir() if file.suffix in (".html", ".js", ".css", ".svg")
    }
    copied = unpacked / "moestream" / "server" / "page"
    assert {file.name for file in copied.iterdir()} == there | {"__init__.py"}
    assert all((copied / name).read_bytes() == (PAGE / name).read_bytes() for name in there)
    served = subprocess.check_output([sys.executable, "-c", ROUTES], cwd=unpacked, text=True)
    named = {f"/page/{name}" for name in there - {"index.html"}}
    assert set(served.split()) == named | {"/"}


def test_the_catalogue_is_in_it(unpacked: Path) -> None:
    assert (unpacked / "moestream" / "models.toml").read_bytes()
