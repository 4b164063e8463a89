import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Event

import pytest
from fake_hub import COMMIT, FakeHub, fake_hub

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.hub import local, parse_reference, repository_folder
from moestream.hub.download import Outcome, download
from moestream.hub.notation import choose
from moestream.hub.partial import PartialFile, note_path, there_bytes
from moestream.hub.repository import HubFile, list_repository

SHARDS = [f"Q8_0/model-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
FILE = "model-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    random_bytes = random.Random(0).randbytes
    names = ["README.md", FILE, *SHARDS]
    with fake_hub({name: random_bytes(50_000 + 1000 * len(name)) for name in names}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("moestream.hub.transfer.WAITS_S", (0.0,) * 6)
        yield hub


@pytest.fixture
def segmented(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub, of whose files each segment has some 10,000 bytes."""
    monkeypatch.setattr("moestream.hub.segments.LEAST_BYTES", 10_000)
    return hub


def part_of(name: str = FILE) -> Path:
    note, part = sorted(repository_folder("org/model").glob(f"{name}.*.part"), key=len_of_name)[
        ::-1
    ]
    assert note == note_path(part)
    return part


def len_of_name(path: Path) -> int:
    return len(path.name)


def bytes_there(hub: FakeHub, name: str = FILE) -> int:
    return there_bytes(part_of(name), len(hub.files[name]))


def pull(what: str = FILE, steps: list[tuple[str, int, int]] | None = None) -> Outcome:
    reference = parse_reference(f"hf:org/model:{what}")
    listing = list_repository(reference.repository)
    model = choose(reference, listing.models(), "the hub")
    report = None if steps is None else lambda *step: steps.append(step)
    return download(listing, model, progress=report)


def files_here() -> dict[str, bytes]:
    folder = repository_folder("org/model")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", local.RECORD)
    }


def test_a_file_comes_whole_from_the_commit_that_was_listed(hub: FakeHub) -> None:
    steps: list[tuple[str, int, int]] = []
    outcome = pull(FILE, steps)
    size = len(hub.files[FILE])
    assert files_here() == {FILE: hub.files[FILE]}
    assert outcome == Outcome(repository_folder("org/model") / FILE, size, size)
    assert steps[0] == (FILE, 0, size)
    assert steps[-1] == (FILE, size, size)
    assert f"/org/model/resolve/{COMMIT}/{FILE}" in [request.path for request in hub.requests]


def test_what_is_here_is_not_fetched_again(hub: FakeHub) -> None:
    pull()
    hub.requests.clear()
    assert pull().fetched_bytes == 0
    assert [request.path.partition("?")[0] for request in hub.requests] == ["/api/models/org/model"]


def test_a_file_that_was_put_there_by_hand_is_hashed_not_fetched(hub: FakeHub) -> None:
    path = repository_folder("org/model") / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(hub.files[FILE])
    assert pull().fetched_bytes == 0
    assert hub.of_cdn() == []


def test_a_new_version_replaces_the_old_one(hub: FakeHub) -> None:
    pull()
    hub.files[FILE] = hub.files[FILE][::-1]
    pull()
    assert files_here() == {FILE: hub.files[FILE]}


def test_all_shards_come_at_once(hub: FakeHub) -> None:
    outcome = pull("Q8_0")
    assert outcome.path == repository_folder("org/model") / SHARDS[0]
    assert files_here() == {name: hub.files[name] for name in SHARDS}


def test_a_dropped_connection_is_taken_up_where_it_broke(hub: FakeHub) -> None:
    hub.drops = [20_000]
    pull()
    assert files_here() == {FILE: hub.files[FILE]}
    starts = [request.headers.get("range") for request in hub.of_cdn()]
    assert starts == [f"bytes={n}-{len(hub.files[FILE]) - 1}" for n in (0, 20_000)]


def test_a_download_that_gave_up_is_resumed_by_the_next(hub: FakeHub) -> None:
    hub.drops = [30_000] + [0] * 10
    with pytest.raises(DownloadError, match=r"could not be read .* what was fetched is kept"):
        pull()
    assert sorted(files_here()) == sorted([part_of().name, note_path(part_of()).name])
    assert bytes_there(hub) == 30_000
    assert part_of().read_bytes()[:30_000] == hub.files[FILE][:30_000]

    hub.drops.clear()
    hub.requests.clear()
    outcome, size = pull(), len(hub.files[FILE])
    assert outcome.fetched_bytes == size - 30_000
    assert [request.headers["range"] for request in hub.of_cdn()] == [f"bytes=30000-{size - 1}"]
    assert files_here() == {FILE: hub.files[FILE]}


def test_a_server_without_ranges_makes_it_start_again(hub: FakeHub) -> None:
    hub.drops, hub.ignores_ranges = [30_000], True
    pull()
    assert files_here() == {FILE: hub.files[FILE]}


def test_a_file_comes_over_several_connections(segmented: FakeHub) -> None:
    segmented.bytes_per_s = 100_000.0
    steps: list[tuple[str, int, int]] = []
    pull(FILE, steps)
    assert files_here() == {FILE: segmented.files[FILE]}
    assert segmented.together > 3
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def test_segments_that_break_off_are_taken_up_each(segmented: FakeHub) -> None:
    segmented.drops = [3000, 0, 9000, 1, 5000, 0, 700]
    pull("Q8_0")
    assert files_here() == {name: segmented.files[name] for name in SHARDS}


def test_what_several_connections_had_is_resumed(segmented: FakeHub) -> None:
    segmented.drops = [3000, 7000, 9000, 0, 1000, 2000, 4000] + [0] * 100
    with pytest.raises(DownloadError, match="what was fetched is kept"):
        pull()
    there = bytes_there(segmented)
    assert 0 < there <= 26_000
    segmented.drops.clear()
    assert pull().fetched_bytes == len(segmented.files[FILE]) - there
    assert files_here() == {FILE: segmented.files[FILE]}


@pytest.mark.parametrize("broke_at", [5_000, 30_000])
def test_without_ranges_one_connection_fetches_all(segmented: FakeHub, broke_at: int) -> None:
    segmented.ignores_ranges, segmented.bytes_per_s = True, 500_000.0
    segmented.drops = [broke_at] * 8  # whichever connection is first
    pull()
    assert files_here() == {FILE: segmented.files[FILE]}


def test_what_was_not_on_the_disk_before_the_machine_was_restarted_is_fetched_again(
    segmented: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = tmp_path / "x.part", len(segmented.files[FILE])
    with PartialFile(path, HubFile(FILE, size, None), Event(), lambda *step: None) as part:
        part.write(0, bytes(10_000))
        part.write(3, bytes(3000))
    assert there_bytes(path, size) == 13_000
    monkeypatch.setattr("psutil.boot_time", lambda: 1e9)
    assert there_bytes(path, size) == 10_000


def test_a_part_of_an_earlier_version_is_taken_up(hub: FakeHub) -> None:
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    begun = folder / f"{FILE}.{hub.sha256(FILE)[:12]}.part"
    begun.write_bytes(hub.files[FILE][:30_000])  # it had no note, and no gaps
    assert pull().fetched_bytes == len(hub.files[FILE]) - 30_000
    assert files_here() == {FILE: hub.files[FILE]}


@pytest.mark.parametrize("wrong", ["gone", "shorter", "of another time", "longer"])
def test_a_note_that_does_not_fit_is_not_believed(segmented: FakeHub, wrong: str) -> None:
    segmented.drops = [3000, 20_000] + [0] * 100
    with pytest.raises(DownloadError):
        pull()
    segmented.drops.clear()
    part = part_of()
    if wrong == "gone":
        part.unlink()
    elif wrong == "shorter":
        part.write_bytes(part.read_bytes()[:5])
    else:
        note = b"moestream part 2" + bytes(300) if wrong == "longer" else b"x"
        note_path(part).write_bytes(note)
    assert pull().fetched_bytes == len(segmented.files[FILE])
    assert files_here() == {FILE: segmented.files[FILE]}


def test_a_file_is_not_too_large_for_a_request(
    segmented: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the package does not ask for without Xet: 50 GB.
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 1000)
    pull()
    assert files_here() == {FILE: segmented.files[FILE]}


@pytest.mark.parametrize("status", [429, 503])
def test_the_hub_is_given_the_time_that_it_asks_for(
    status: int, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("moestream.hub.transfer.Transfer._wait", lambda self, s: waits.append(s))
    monkeypatch.setattr("moestream.hub.transfer.WAITS_S", (1.0,) * 6)
    hub.refusals = [
        (status, {"Retry-After": "7"}),
        (status, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=60))}),
        (status, {"RateLimit": '"resolvers";r=0;t=30'}),
        (status, {}),
    ]
    pull()
    assert files_here() == {FILE: hub.files[FILE]}
    assert waits[0] == 7
    assert 50 < waits[1] <= 60
    assert waits[2:] == [31, 1]


@pytest.mark.parametrize(
    ("refusal", "complaint"),
    [((403, {}), "answered with status 403"), ((429, {"Retry-After": "90000"}), "status 429")],
)
def test_what_waiting_does_not_help_is_told_at_once(
    refusal: tuple[int, dict[str, str]], complaint: str, hub: FakeHub
) -> None:
    hub.refusals = [refusal]
    with pytest.raises(DownloadError, match=complaint):
        pull()


@pytest.mark.parametrize("told", ["bytes 5-9/100", "bytes 0-9/99", "none"])
def test_bytes_of_another_place_are_refused(told: str, hub: FakeHub) -> None:
    hub.range_told = told
    with pytest.raises(DownloadError, match=f"sent '{told}'; look for a proxy"):
        pull()
    assert FILE not in files_here()


def test_what_was_begun_of_an_old_version_is_not_taken_up(hub: FakeHub) -> None:
    hub.drops = [30_000] + [0] * 10
    with pytest.raises(DownloadError):
        pull()
    hub.drops.clear()
    hub.files[FILE] = hub.files[FILE][::-1]
    pull()
    assert files_here()[FILE] == hub.files[FILE]


def test_damaged_bytes_of_an_earlier_download_are_found_out(hub: FakeHub) -> None:
    hub.drops = [30_000] + [0] * 10
    with pytest.raises(DownloadError):
        pull()
    hub.drops.clear()
    with part_of().open("r+b") as part:
        part.write(b"x")
    with pytest.raises(DownloadError, match="sha256"):
        pull()
    assert files_here() == {}


def test_a_wrong_hash_leaves_nothing(hub: FakeHub) -> None:
    hub.stated_sha256[FILE] = "0" * 64
    with pytest.raises(DownloadError, match=f"{FILE} came with sha256 .* hub states 0000"):
        pull()
    assert files_here() == {}


def test_one_bad_shard_keeps_the_good_ones_for_the_next_time(hub: FakeHub) -> None:
    hub.stated_sha256[SHARDS[1]] = "0" * 64
    with pytest.raises(DownloadError, match="00002-of-00003"):
        pull("Q8_0")
    assert SHARDS[1] not in files_here()
    assert local.find(parse_reference("org/model:Q8_0")) is None
    hub.stated_sha256.clear()
    pull("Q8_0")
    assert files_here() == {name: hub.files[name] for name in SHARDS}


def test_a_full_disk_is_seen_before_anything_is_fetched(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(
        DownloadError, match=r"needs 0\.00 GB more.* 0\.00 GB free.*MOESTREAM_CACHE"
    ):
        pull()
    assert hub.of_cdn() == []
    assert files_here() == {}


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, index: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moestream.hub.partial.PartialFile.write", refuse)
    with pytest.raises(DownloadError, match=r"could not write .* No space left on device"):
        pull()
    assert FILE not in files_here()


def test_a_file_that_is_listed_but_missing(hub: FakeHub) -> None:
    hub.lost = {FILE}
    with pytest.raises(DownloadError, match="lists a file of org/model that it does not have"):
        pull()
    assert FILE not in files_here()


def test_a_gated_repository_says_how_to_get_in(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match=r"gated: accept its terms at .*/org/model.*HF_TOKEN"):
        pull()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull()
    assert files_here()[FILE] == hub.files[FILE]
    # The token is the hub's: it must not go where the redirect leads.
    assert [request for request in hub.of_cdn() if "authorization" in request.headers] == []


def test_a_repository_that_is_not_there(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no org/other, or it is private"):
        list_repository("org/other")


def test_no_network(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"could not be read from http://127\.0\.0\.1:9"):
        list_repository("org/model")


def test_removing_takes_the_files_and_what_was_begun(hub: FakeHub) -> None:
    pull("Q8_0")
    hub.drops = [30_000] + [0] * 10
    with pytest.raises(DownloadError):
        pull()
    assert local.remove(parse_reference("org/model:Q8_0")) == sum(len(hub.files[n]) for n in SHARDS)
    assert [name for name in files_here() if name in SHARDS] == []
    # Of a file with gaps, what it takes on the disk, in blocks.
    assert 30_000 <= local.remove(parse_reference(f"org/model:{FILE}")) < 50_000
    assert not repository_folder("org/model").exists()
    assert local.remove(parse_reference(f"org/model:{FILE}")) == 0
