"""How the hub is asked: where it is, one request, what it may get over, and failures in words.

Owns the use of ``huggingface_hub``'s HTTP client, which reads ``HF_TOKEN``, and where it may be
sent on to.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.reasons import reason_of

DEFAULT_ENDPOINT = "https://huggingface.co"
_MOST_JSON_BYTES = 64 << 20
_PASSING = (408, 429, 500, 502, 503, 504)


def endpoint() -> str:
    """Where the hub is (``HF_ENDPOINT``)."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


@contextmanager
def opened(url: str, **headers: str) -> Iterator[Any]:
    """Ask once, and give the response before its body is read.

    Raises what the package raises: see ``explain``.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    refuse_other_schemes()
    with http_stream_backoff(
        "GET",
        url,
        headers=build_hf_headers() | headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),
        retry_on_status_codes=(),
    ) as response:
        hf_raise_for_status(response)
        yield response


def read_json(url: str, what: str) -> Any:
    """Ask for JSON, and give what it says; None where it is none. ``what`` names it in errors.

    Raises:
        ModelNotFoundError: the hub has no such thing, or not for us.
        DownloadError: the hub could not be asked.
    """
    data = bytearray()
    try:
        with opened(url) as response:
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > _MOST_JSON_BYTES:
                    break
    except Exception as error:  # the package's errors share no base with its network layer's
        raise explain(error, what) from error
    if len(data) > _MOST_JSON_BYTES:
        raise DownloadError(
            f"{endpoint()} says more than {_MOST_JSON_BYTES >> 20} MiB of {what}; is it a hub at "
            "all?"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def refuse_other_schemes() -> None:
    """Have the client refuse to be sent from https to http, or to anything else."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks
    if _require_scheme not in hooks["request"]:
        hooks["request"].append(_require_scheme)
        get_session().event_hooks = hooks


def _require_scheme(request: Any) -> None:
    scheme, own = request.url.scheme, endpoint().partition(":")[0]
    if scheme != "https" and scheme != own:
        raise DownloadError(
            f"{endpoint()} sent us on to {str(request.url)[:80]!r}, which is not asked: from "
            f"{own} only https is followed; check HF_ENDPOINT and proxies"
        )


def explain(error: Exception, repository: str) -> DownloadError | ModelNotFoundError:
    """Turn what ``huggingface_hub`` raised into what to do about it."""
    from huggingface_hub import errors

    hub = endpoint()
    if isinstance(error, DownloadError):
        return error
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{repository} is gated: accept its terms at {hub}/{repository}, and set HF_TOKEN to a "
            f"token of your account from {hub}/settings/tokens"
        )
    status = _status(error)
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelNotFoundError(
            f"{hub} has no {repository}, or it is private; check the spelling, or set HF_TOKEN"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError) or status == 404:
        return DownloadError(f"{hub} lists a file of {repository} that it does not have; try later")
    if status is not None:
        return DownloadError(f"{hub} answered with status {status} for {repository}; try later")
    return DownloadError(
        f"{repository} could not be read from {hub} ({reason_of(error)}); check the network, "
        "HF_ENDPOINT and proxies, and run it again"
    )


def is_passing(error: Exception) -> bool:
    """Whether it is worth trying again: the network's fault, or one that the hub may get over."""
    # By name: the package has had more than one network layer, which all call it so.
    of_network = "TransportError" in {kind.__name__ for kind in type(error).__mro__}
    return of_network or _status(error) in _PASSING


def asked_wait_s(error: Exception) -> float | None:
    """Seconds that the hub asks to wait for, None where it does not."""
    from huggingface_hub.utils import parse_ratelimit_headers

    if _status(error) not in _PASSING:
        return None
    headers = error.response.headers  # type: ignore[attr-defined]
    told = headers.get("Retry-After", "").strip()
    if told.isdecimal():
        return float(told)
    if told:
        with suppress(ValueError):
            return max((parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds(), 0.0)
    limit = parse_ratelimit_headers(headers)
    return None if limit is None else limit.reset_in_seconds + 1.0


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
