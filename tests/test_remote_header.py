"""The header of a model that is on the hub alone: what is asked for, and what can go wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from expert_files import write_experts
from fake_hub import COMMIT, FakeHub, fake_hub
from gguf_bytes import ARRAY, STRING, RawGGUF, array, entry, key

from moestream.errors import DownloadError, ModelFormatError, ModelNotFoundError
from moestream.gguf import GGUFFile, GGUFHeader
from moestream.hub import parse_reference
from moestream.hub import remote_header as hub_header
from moestream.hub.remote_header import fetch_header
from moestream.hub.repository import look_up

FILE = "model-Q4_K_M.gguf"
FIRST = 200


@pytest.fixture
def hub(tmp_path: Path, alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub({FILE: alphabet.read_bytes()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(hub_header, "FIRST_BYTES", FIRST)
        yield hub


def fetch(what: str = FILE) -> GGUFHeader:
    return fetch_header(*look_up(parse_reference(f"hf:org/model:{what}")))


def assert_same(fetched: GGUFHeader, path: Path) -> None:
    with GGUFFile.open(path) as file:
        assert fetched.metadata == file.metadata
        assert fetched.tensors == file.tensors
        assert fetched.n_bytes == file.n_bytes


def ranges(hub: FakeHub) -> list[tuple[int, int]]:
    """First and last byte of every range that was asked for."""
    asked = [request.headers["range"].removeprefix("bytes=") for request in hub.of_cdn()]
    return [(int(start), int(end)) for start, _, end in (text.partition("-") for text in asked)]


def test_the_range_grows_until_the_header_is_whole(hub: FakeHub, alphabet: Path) -> None:
    fetched = fetch()
    assert_same(fetched, alphabet)
    assert str(fetched.path) == f"hf:org/model/{FILE}"
    asked = ranges(hub)
    assert asked[0] == (0, FIRST - 1)
    assert 2 < len(asked) < 7
    # Nothing twice, nothing left out, and of the tensors at most as much again as headers take.
    assert [start for start, _ in asked[1:]] == [end + 1 for _, end in asked[:-1]]
    first_tensor = min(info.offset for info in fetched.tensors.values())
    assert asked[-1][1] < 4 * first_tensor < len(hub.files[FILE])
    assert f"/org/model/resolve/{COMMIT}/{FILE}" in [request.path for request in hub.requests]


def test_a_header_that_the_first_range_holds_takes_one_request(
    hub: FakeHub, alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_header, "FIRST_BYTES", 1 << 30)
    assert_same(fetch(), alphabet)
    assert ranges(hub) == [(0, len(hub.files[FILE]) - 1)]


def test_all_shards_are_read(hub: FakeHub, tmp_path: Path) -> None:
    path = write_experts(tmp_path / "split.gguf", shards=2)
    hub.files = {f"Q8_0/{p.name}": p.read_bytes() for p in sorted(path.parent.glob("split-*"))}
    assert len(hub.files) > 1
    fetched = fetch("Q8_0")
    assert_same(fetched, path)
    assert [str(shard) for shard in fetched.shards] == [f"hf:org/model/{n}" for n in hub.files]


def test_a_server_without_ranges_is_read_as_far_as_need_be(hub: FakeHub, alphabet: Path) -> None:
    hub.ignores_ranges = True
    assert_same(fetch(), alphabet)


def test_an_answer_that_breaks_off_is_taken_up(hub: FakeHub, alphabet: Path) -> None:
    hub.drops = [50, 60]
    assert_same(fetch(), alphabet)
    assert [start for start, _ in ranges(hub)[:4]] == [0, 50, 110, FIRST]


@pytest.mark.parametrize("drops", [[0], [1] * 10])
def test_answers_that_bring_nothing_end_it(drops: list[int], hub: FakeHub) -> None:
    hub.drops = drops
    with pytest.raises(DownloadError, match=r"org/model could not be read from .*run it again$"):
        fetch()
    assert len(hub.of_cdn()) <= 5


def test_what_is_no_model_is_told_by_its_first_bytes(hub: FakeHub) -> None:
    hub.files[FILE] = b"<html>no such thing</html>" * 1000
    with pytest.raises(ModelFormatError, match=rf"hf:org/model/{FILE}.* not a GGUF file"):
        fetch()
    assert len(ranges(hub)) == 1


@pytest.mark.parametrize("contents", [b"", b"GG"])
def test_a_file_of_next_to_nothing(contents: bytes, hub: FakeHub) -> None:
    hub.files[FILE] = contents
    with pytest.raises(ModelFormatError, match="not a GGUF file"):
        fetch()


def test_a_header_that_no_sane_file_has_is_refused_unread(hub: FakeHub) -> None:
    lies = RawGGUF([key("k", ARRAY, array(STRING, 1 << 22, b""))], [entry("t")])
    hub.files[FILE] = lies.build() + bytes(10_000)
    with pytest.raises(ModelFormatError, match=r"the file ends at \d+; the file is cut off"):
        fetch()
    assert len(ranges(hub)) == 1


def test_tensors_that_lie_outside_of_the_file_are_found_out(hub: FakeHub) -> None:
    hub.files[FILE] = hub.files[FILE][:-1000]
    with pytest.raises(ModelFormatError, match="but the file ends at"):
        fetch()


def test_a_gated_repository_and_a_token_that_stays_with_the_hub(
    hub: FakeHub, alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match=r"gated: accept its terms at .*HF_TOKEN"):
        fetch()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert_same(fetch(), alphabet)
    assert [request for request in hub.of_cdn() if "authorization" in request.headers] == []


def test_a_file_that_is_listed_but_missing(hub: FakeHub) -> None:
    hub.lost = {FILE}
    with pytest.raises(DownloadError, match="lists a file of org/model that it does not have"):
        fetch()


def test_a_quantisation_that_is_not_there(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match="org/model has no Q2_K; it has Q4_K_M"):
        fetch("Q2_K")
    assert hub.of_cdn() == []
