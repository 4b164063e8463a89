"""What the hub says is in a repository: one request, and its failures in words.

Owns the use of ``huggingface_hub``'s API client, which reads ``HF_TOKEN`` and ``HF_HUB_OFFLINE``.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.hub.notation import HubReference, ModelFiles, choose, group_shards

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub. ``sha256`` is of its content, None where the hub states none."""

    name: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: dict[str, HubFile]

    def models(self) -> list[ModelFiles]:
        """The models in it."""
        return group_shards(self.files)

    def size_bytes(self, model: ModelFiles) -> int:
        """Bytes of all files of a model."""
        return sum(self.files[name].size_bytes for name in model.names)


def endpoint() -> str:
    """Where the hub is (``HF_ENDPOINT``)."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def list_repository(repository: str) -> Listing:
    """Ask the hub what ``ORG/REPO`` has now.

    Raises:
        ModelNotFoundError: no such repository, or not for us.
        DownloadError: the hub could not be asked.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint()).model_info(repository, files_metadata=True)
    except Exception as error:  # the package's errors share no base with its network layer's
        raise explain(error, repository) from error
    return _read(info, repository)


def look_up(reference: HubReference) -> tuple[Listing, ModelFiles]:
    """Ask the hub what the repository has, and return that and the model that is meant.

    Raises:
        ModelNotFoundError: no such repository, or not for us; none or several models fit.
        DownloadError: the hub could not be asked.
    """
    listing = list_repository(reference.repository)
    return listing, choose(reference, listing.models(), reference.repository)


def _read(info: "ModelInfo", repository: str) -> Listing:
    if info.sha is None:
        raise DownloadError(f"{endpoint()} named no commit of {repository}; is it a hub at all?")
    files = {
        sibling.rfilename: HubFile(
            sibling.rfilename,
            sibling.lfs.size if sibling.lfs else sibling.size or 0,
            sibling.lfs.sha256 if sibling.lfs else None,
        )
        for sibling in info.siblings or ()
    }
    return Listing(repository, info.sha, files)


def explain(error: Exception, repository: str) -> DownloadError | ModelNotFoundError:
    """Turn what ``huggingface_hub`` raised into what to do about it."""
    from huggingface_hub import errors

    hub = endpoint()
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DownloadError(
            f"{repository} was not asked for: HF_HUB_OFFLINE is set; unset it to use the network"
        )
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
    reason = " ".join(str(error).split()) or type(error).__name__
    return DownloadError(
        f"{repository} could not be read from {hub} ({reason}); check the network, HF_ENDPOINT and "
        "proxies, and run it again"
    )


def _status(error: Exception) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
