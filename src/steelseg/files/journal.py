"""The journal of a prediction, from which it resumes after a kill.

    prediction.journal
      5f3a1c... {"identity": {"models": ..., "settings": ..., "files": ...}}
      90d17b... {"image_id": "a.jpg", "sha256": ..., "found": {"csv": ...}, "files": []}

Each line begins with a digest of the rest. An incomplete line, left by a kill or a power cut, is
removed, and a journal of another identity is discarded, so that results are never mixed. One
process writes at a time. The journal is removed when the prediction is complete.

Lines survive the end of the process; a power cut may lose the last ones.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from steelseg.errors import DataError
from steelseg.files.lock import open_locked

JOURNAL = "prediction.journal"

_DIGITS = 16


@dataclass(frozen=True)
class Entry:
    """The results of one image."""

    image_id: str

    sha256: str
    """SHA-256 of the image file that was predicted."""

    found: Mapping[str, Any]
    """Its record in each text format."""

    files: list[str]
    """Pictures that were written, as paths in the output folder."""


class Journal:
    """Entries in a file, one per line; only their positions are kept in memory."""

    def __init__(self, file: IO[bytes], places: dict[str, int]) -> None:
        """Take a file open to read and write, and the position of each entry, by image_id."""
        self._file = file
        self._places = places

    def has(self, image_id: str) -> bool:
        """Whether an image has an entry."""
        return image_id in self._places

    def __getitem__(self, image_id: str) -> Entry:
        """Return the last entry of an image."""
        self._file.seek(self._places[image_id])
        content = _unseal(self._file.readline())
        assert content is not None, image_id
        return Entry(**content)

    def add(self, entry: Entry) -> None:
        """Append an entry; it survives the end of this process."""
        self._places[entry.image_id] = self._file.seek(0, os.SEEK_END)
        self._file.write(_seal(asdict(entry)))
        self._file.flush()


@contextmanager
def open_journal(path: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the journal of a prediction, to resume or to start it.

    It is removed if the block ends without an error, and kept if the block raises.

    Args:
        path: The file; its folder is created if missing.
        identity: Everything that entries depend on except the image, as plain values.

    Raises:
        DataError: if another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    in_use = DataError(
        f"{path} is in use: another process writes to this folder. Wait for it, or choose "
        "another folder."
    )
    try:
        with os.fdopen(open_locked(path, in_use=in_use), "r+b") as file:
            yield _begin(file, path, json.loads(json.dumps(identity)))
            path.unlink()
    except OSError as error:
        # A full disk is reported without the name of the file.
        error.filename = error.filename or str(path)
        raise


def _begin(file: IO[bytes], path: Path, identity: dict[str, Any]) -> Journal:
    """Remove unusable lines: incomplete ones, or all if they are of another prediction."""
    end, places = 0, {}
    for line in file:
        content = _unseal(line)
        if content is None or (end == 0 and not _is_same(content, identity, path)):
            break
        places[content.get("image_id", "")] = end
        end += len(line)
    file.seek(end)
    file.truncate()
    if end == 0:
        file.write(_seal({"identity": identity}))
        file.flush()
    return Journal(file, places)


def _is_same(content: dict[str, Any], identity: dict[str, Any], path: Path) -> bool:
    """Whether the first line is of the same prediction; print a warning if it is not."""
    before = content.get("identity", {})
    if odd := [name for name, value in identity.items() if before.get(name) != value]:
        reason = (
            f"warning: {path} was written with other {' and '.join(odd)}. Prediction starts over."
        )
        print(reason, file=sys.stderr, flush=True)
    return not odd


def _seal(content: Mapping[str, Any]) -> bytes:
    """Return a line that starts with the digest of its content."""
    text = json.dumps(content).encode()
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode() + b" " + text + b"\n"


def _unseal(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None if it is incomplete."""
    digest, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or hashlib.sha256(text).hexdigest()[:_DIGITS].encode() != digest:
        return None
    content: dict[str, Any] = json.loads(text)
    return content
