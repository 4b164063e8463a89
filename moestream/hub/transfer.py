"""Connections that fetch segments, from one file or several, and try again what breaks off.

Owns the threads, the requests and their patience. What is done with the bytes is ``partial``'s, and
what a hub or a server behind it may say of a range is not believed unseen.
"""

import re
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from moestream.closing import Closing
from moestream.errors import DownloadError
from moestream.hub.http import asked_wait_s, endpoint, explain, is_passing, opened
from moestream.hub.partial import Cancelled, PartialFile, Superseded
from moestream.hub.repository import Listing
from moestream.progress import Progress

CONNECTIONS = 8
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before each new try of a connection to which nothing comes, where the hub asks for no other."""
_LONGEST_WAIT_S = 900
"""That a hub may ask for. Its limits are of five minutes."""
_TOLD_WAIT_S = 4
_END_S = 1.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Transfer(Closing):
    """Fetches what is missing of ``parts``, in their order, in threads of its own.

    A context manager: at its end the threads are asked to stop, and waited for a moment.
    """

    def __init__(
        self,
        listing: Listing,
        parts: Iterable[PartialFile],
        stop: threading.Event,
        report: Progress,
    ) -> None:
        self._listing = listing
        self._stop = stop
        self._report = report
        self._news = threading.Event()
        self._failure: BaseException | None = None
        self._jobs = deque((part, index) for part in parts for index in part.segments.missing())
        # Daemons: one that waits for a dead connection must not keep the program from ending.
        self._threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(CONNECTIONS, len(self._jobs)))
        ]
        for thread in self._threads:
            thread.start()

    def listen(self, seconds: float) -> None:
        """Wait so long for something to happen.

        Raises:
            DownloadError, ModelNotFoundError: a connection gave up; what was fetched is kept.
        """
        self._news.wait(seconds)
        self._news.clear()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_END_S / len(self._threads))

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                part, index = self._jobs.popleft()
                with suppress(Superseded):
                    self._fetch(part, index)
                self._news.set()
        except (IndexError, Cancelled):  # nothing is left to do
            pass
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()
        finally:
            self._news.set()

    def _fetch(self, part: PartialFile, index: int) -> None:
        """Fetch one segment, or a whole file where it has to be, however often that takes."""
        failures = 0
        while (wanted := part.wanted(index)) is not None and not self._stop.is_set():
            before = part.segments.position(wanted)
            error = self._try(part, wanted)
            if part.segments.position(wanted) > before:
                failures = 0
            else:
                self._wait(_patience(part, failures, error, self._listing.repository))
                failures += 1

    def _try(self, part: PartialFile, index: int) -> Exception | None:
        """Ask once for what is missing of a segment, and give back what went wrong."""
        try:
            self._ask(part, index)
        except (Cancelled, Superseded, DownloadError):
            raise
        except Exception as error:  # the package's errors share no base with its network layer's
            if isinstance(error, OSError) and error.errno is not None:
                raise DownloadError(
                    f"could not write {part.path}: {error.strerror}; what was fetched is kept"
                ) from error
            return error
        return None

    def _ask(self, part: PartialFile, index: int) -> None:
        from huggingface_hub import hf_hub_url

        name, segments = part.file.name, part.segments
        listing = self._listing
        url = hf_hub_url(listing.repository, name, revision=listing.commit, endpoint=endpoint())
        start, end = segments.position(index), segments.end(index)
        # Not compressed: ranges would then be of something else, or ignored.
        asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with opened(url, **asked) as response:
            chunks = response.iter_bytes()  # as they come: what is gathered would be lost
            if response.status_code == 206:
                _require_range(response, start, part)
                for chunk in chunks:
                    part.write(index, chunk)
            else:
                part.begin_anew()
                _write_all(part, chunks)

    def _wait(self, seconds: float) -> None:
        told = f"waiting {seconds:.0f} s for {endpoint()}"
        if seconds > _TOLD_WAIT_S:
            self._report(told, 0, 1)
        self._stop.wait(seconds)
        if seconds > _TOLD_WAIT_S:
            self._report(told, 1, 1)


def _patience(part: PartialFile, failures: int, error: Exception | None, repository: str) -> float:
    """How long to wait before the next try, after so many that brought nothing, and this one."""
    asked = None if error is None else asked_wait_s(error)
    passes = error is None or is_passing(error)
    if failures < len(WAITS_S) and passes and (asked or 0) <= _LONGEST_WAIT_S:
        return WAITS_S[failures] if asked is None else asked
    if error is None:
        raise DownloadError(
            f"{endpoint()} sends nothing more of {part.file.name}: what was fetched is kept; run "
            "it again"
        )
    told = explain(error, repository)
    raise type(told)(f"{told}: what was fetched is kept") from error


def _write_all(part: PartialFile, chunks: Iterable[bytes]) -> None:
    """Write a file that comes from its start to its end."""
    segments, position = part.segments, 0
    for chunk in chunks:
        rest = chunk
        while rest:
            index = min(position // segments.segment_bytes, len(segments.counts) - 1)
            taken = segments.end(index) - position or len(rest)  # too much: ``write`` refuses it
            part.write(index, rest[:taken])
            position, rest = position + len(rest[:taken]), rest[taken:]


def _require_range(response: Any, start: int, part: PartialFile) -> None:
    """Refuse bytes that are said to be of another place, or another file."""
    told = response.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(told)
    if match is None or (int(match[1]), int(match[3])) != (start, part.file.size_bytes):
        raise DownloadError(
            f"asked for bytes of {part.file.name} from {start:,} on, of {part.file.size_bytes:,}, "
            f"{endpoint()} sent {told[:80]!r}; look for a proxy, and run it again"
        )
