"""Which version of a file lies here: a small JSON file in each repository's folder.

Without it every look would have to hash 20 GB. Knows nothing of the network.
"""

import hashlib
import json
import threading
from pathlib import Path

from moestream.folders import replacing

RECORD = ".moestream.json"
"""What the hub said of the files when they were fetched."""
_lock = threading.Lock()  # downloads of shards end at the same time


def recorded(folder: Path, name: str) -> str | None:
    """Return the sha256 that a file had when it was checked; None if that is not known."""
    value = _read(folder / RECORD).get(name)
    return value if isinstance(value, str) else None


def write_record(folder: Path, name: str, sha256: str) -> None:
    """Note that a file was checked."""
    with _lock:
        records = _read(folder / RECORD) | {name: sha256}
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / RECORD) as file:
            file.write(json.dumps(records, indent=1) + "\n")


def forget(folder: Path, name: str) -> None:
    """Note that a file was deleted: another of its name must be checked anew."""
    with _lock:
        records = _read(folder / RECORD)
        if records.pop(name, None) is not None:
            with replacing(folder / RECORD) as file:
                file.write(json.dumps(records, indent=1) + "\n")


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged: then files are hashed again
        return {}
    return value if isinstance(value, dict) else {}
