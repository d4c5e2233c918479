"""results.jsonl: a line for every strip, appended for good, and the record of what is done.

A line is on the disk before `add` returns. A killed process leaves whole lines and at most a
part of one at the end, which is cut off when the file is opened again. What a line names as its
files is done with, so a new process goes on where the last one was. One process writes at a time.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from steelseg.errors import ConfigError, DataError
from steelseg.files.atomic import sync_folder
from steelseg.files.lock import open_locked
from steelseg.watch.arrivals import FileVersion

RESULTS = "results.jsonl"


class Results:
    """The lines written so far."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, and read what is done.

        Raises:
            ConfigError: if another process writes to it.
            DataError: if a line is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        in_use = ConfigError(
            f"{path} is being written by another steelseg watch. Choose another --out."
        )
        self._handle = open_locked(path, in_use=in_use)
        sync_folder(path.parent)
        # A digest for each, because a line runs for years.
        self._done: set[bytes] = set()
        self.size = 0
        """Bytes that are on the disk for good."""
        try:
            self._load()
        except BaseException:
            os.close(self._handle)
            raise

    def __enter__(self) -> Self:
        """Do nothing: the file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which lets another process write."""
        os.close(self._handle)

    def _load(self) -> None:
        """Note every whole line, and cut off a part of one."""
        with open(self._handle, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(json.loads(line))
                except (ValueError, TypeError, LookupError, RecursionError):
                    raise DataError(
                        f"{self.path}:{number}: the line is damaged. Mend or remove it, or "
                        "choose another --out."
                    ) from None
                self.size += len(line)
        self._cut()

    def _cut(self) -> None:
        """Remove what is not a whole line."""
        os.ftruncate(self._handle, self.size)
        os.lseek(self._handle, self.size, os.SEEK_SET)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is on the disk when this returns.

        Raises:
            OSError: if the disk refuses it; then no part of it stays.
        """
        content = json.dumps(line).encode() + b"\n"
        try:
            written = 0
            while written < len(content):
                written += os.write(self._handle, content[written:])
            os.fsync(self._handle)
        except OSError as error:
            self._cut()
            error.filename = str(self.path)
            raise
        self.size += len(content)
        self._note(line)

    def _note(self, line: Mapping[str, Any]) -> None:
        """Remember a strip as done; and its files, unless another piece could still come."""
        reason = line.get("refused", "")
        self._done.add(_digest(line["image_id"], line["sha256"], reason))
        for file in () if reason else line["files"]:
            self._done.add(_digest(file["name"], file["size"], file["mtime_ns"]))

    def has_strip(self, image_id: str, sha256: str, reason: str = "") -> bool:
        """Whether a strip of this name and content has its line, or was refused for a reason."""
        return _digest(image_id, sha256, reason) in self._done

    def has_file(self, version: FileVersion) -> bool:
        """Whether a file, as it is now, is part of a strip that has its line."""
        return _digest(*version) in self._done


def _digest(*parts: object) -> bytes:
    """A few bytes that tell one set of words from every other."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
