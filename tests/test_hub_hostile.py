"""A hub that lies: it may say anything, and nothing leaves the folder for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, FakeHub, fake_hub

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.hub import parse_reference, repository_folder
from moestream.hub.download import download
from moestream.hub.repository import look_up

FILE = "model-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub({FILE: b"x" * 5000}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "a" / "b" / "cache"))
        monkeypatch.setattr("moestream.hub.transfer.WAITS_S", (0.0,) * 6)
        yield hub


def pull(what: str = FILE) -> None:
    download(*look_up(parse_reference(f"hf:org/model:{what}")))


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../victim/model-Q4_K_M.gguf",
        "a/../../model-Q4_K_M.gguf",
        "/abs/model-Q4_K_M.gguf",
        "C:/model-Q4_K_M.gguf",
        "C:model-Q4_K_M.gguf",
        "..\\..\\model-Q4_K_M.gguf",
        "a//model-Q4_K_M.gguf",
        "./model-Q4_K_M.gguf",
        "model\0-Q4_K_M.gguf",
        "model\n-Q4_K_M.gguf",
        "m" * 300 + "-Q4_K_M.gguf",
        "/".join(["m"] * 900) + ".gguf",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(name: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {name: b"x" * 100}
    with pytest.raises(DownloadError, match="do not trust this hub"):
        pull("Q4_K_M")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def entry(**values: Any) -> dict[str, Any]:
    lfs = {"sha256": "0" * 64, "size": 5}
    return {"siblings": [{"rfilename": FILE, "lfs": {**lfs, **values}}]}


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"sha": "../../x"}, "named no commit"),
        ({"sha": None}, "named no commit"),
        ({"siblings": "many"}, "does not list the files"),
        (entry(size=-1), "which cannot be"),
        (entry(size=2**60), "which cannot be"),
        (entry(size="5"), "which cannot be"),
        (entry(size=True), "which cannot be"),
        (entry(sha256="../x"), "which cannot be"),
        (entry(sha256=7), "which cannot be"),
        (entry(sha256=None), "states no sha256"),
        ({"siblings": [7, {"rfilename": 7}]}, "has no GGUF model"),
    ],
)
def test_sizes_counts_and_hashes_are_bounded(
    told: dict[str, Any], complaint: str, hub: FakeHub
) -> None:
    hub.told = told
    with pytest.raises((DownloadError, ModelNotFoundError), match=complaint):
        pull("Q4_K_M")


def test_a_listing_without_end_is_not_read_to_its_end(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestream.hub.http._MOST_JSON_BYTES", 1 << 20)
    hub.told = {"description": "x" * (2 << 20)}
    with pytest.raises(DownloadError, match="says more than 1 MiB"):
        pull()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_to_another_scheme_is_refused(target: str, hub: FakeHub) -> None:
    hub.sends_to = target
    with pytest.raises(DownloadError):
        pull()
    assert not list(repository_folder("org/model").rglob("*.gguf"))


def test_https_is_not_left_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import get_session

    from moestream.hub.http import refuse_other_schemes

    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    refuse_other_schemes()
    with pytest.raises(DownloadError, match="only https is followed"):
        get_session().get("http://127.0.0.1:1/model.gguf")


def test_nothing_is_written_through_a_link(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {f"inner/{FILE}": b"x" * 100}
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    (folder / "inner").symlink_to(outside)
    with pytest.raises(DownloadError, match="remove the link"):
        pull("Q4_K_M")
    assert list(outside.iterdir()) == []


def test_a_part_that_is_a_link_is_not_followed(hub: FakeHub, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    (folder / f"{FILE}.{hub.sha256(FILE)[:12]}.part").symlink_to(victim)
    pull()
    assert victim.read_bytes() == b"keep"
    assert (folder / FILE).read_bytes() == hub.files[FILE]
    assert COMMIT
