"""Whether the network may be used: ``HF_HUB_OFFLINE``, as the hub's own package reads it."""

import os

from moestream.errors import DownloadError

_YES = ("1", "ON", "YES", "TRUE")


def require_online(what: str) -> None:
    """See that the network may be used, before anything is said of it.

    Raises:
        DownloadError: it may not.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise DownloadError(
            f"{what} was not asked for: HF_HUB_OFFLINE is set; unset it to use the network"
        )
