"""The header of a model that is on the hub and not here: its first bytes, and no more.

Owns how many are asked for, and what becomes of answers that break off. What a header is, the
parser in ``gguf`` knows: it says whether there is more of it.
"""

from pathlib import Path

from moestream.errors import DownloadError
from moestream.gguf import GGUFHeader, IncompleteHeader, Shard, read_header
from moestream.hub.http import endpoint, explain, opened
from moestream.hub.notation import PREFIX, ModelFiles
from moestream.hub.repository import HubFile, Listing

FIRST_BYTES = 1 << 19
_GROWTH = 4
"""How many times as many are asked for if a header goes on. A vocabulary of 150,000 takes 6 MB."""
_ATTEMPTS = 5


def fetch_header(listing: Listing, model: ModelFiles) -> GGUFHeader:
    """Read the headers of all files of a model, by HTTP ranges.

    Raises:
        DownloadError: no network, no leave, or answers that break off again and again.
        ModelFormatError: a file is no sound GGUF file, or its header is larger than any should be.
        UnsupportedQuantError: a tensor has a type number that is unknown here.
    """
    shards = [_fetch_shard(listing, listing.files[name]) for name in model.names]
    return GGUFHeader(shards[0].path, shards)


def _fetch_shard(listing: Listing, file: HubFile) -> Shard:
    path = Path(f"{PREFIX}{listing.repository}", file.name)
    data, wanted = bytearray(), FIRST_BYTES
    while True:
        wanted = min(wanted, file.size_bytes)
        _extend(data, wanted, listing, file)
        try:
            return Shard(path, file.size_bytes, read_header(data, path, file.size_bytes))
        except IncompleteHeader as more:  # never more than the parser's limit, nor than the file
            wanted = max(_GROWTH * len(data), more.needed_bytes)


def _extend(data: bytearray, wanted: int, listing: Listing, file: HubFile) -> None:
    """Fetch what is missing of the first ``wanted`` bytes; take up what breaks off."""
    attempts = 0
    while len(data) < wanted:
        attempts += 1
        before = len(data)
        try:
            _ask(data, wanted, listing, file)
        except Exception as error:
            if len(data) <= before or attempts == _ATTEMPTS:
                raise explain(error, listing.repository) from error
        if len(data) <= before or (attempts == _ATTEMPTS and len(data) < wanted):
            raise DownloadError(
                f"{endpoint()} sent {len(data):,} of the first {wanted:,} bytes of {file.name} and "
                "broke off; try again"
            )


def _ask(data: bytearray, wanted: int, listing: Listing, file: HubFile) -> None:
    """Ask once for what is missing, and append what comes of it."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=endpoint())
    # Not compressed: ranges would then be of something else, or ignored.
    asked = {"Range": f"bytes={len(data)}-{wanted - 1}", "Accept-Encoding": "identity"}
    with opened(url, **asked) as response:
        if response.status_code != 206:  # it ignores ranges: the file comes from its start
            data.clear()
        for chunk in response.iter_bytes():
            data += chunk[: wanted - len(data)]
            if len(data) >= wanted:
                return
