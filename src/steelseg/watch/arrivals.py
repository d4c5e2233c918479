"""Detect image files that a camera writes into a folder, and when they are complete.

A file is read once its size and time have not changed for `settle` seconds, and is complete if it
decodes. If it does not decode, it is read again `patience` seconds later, and refused if it still
does not. A file that changes is a new version, whatever happened to the previous one. A file that
changes while it is read is read again.

The folder is polled, because network folders send no events. File times are only compared with each
other, never with a clock, so the clocks of camera and reader may differ. Hidden files, other
suffixes and folders are ignored. Nothing is written into the folder.
"""

import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats.images import MAX_BYTES, decode_image, is_image_name
from steelseg.errors import DataError


class FileVersion(NamedTuple):
    """One version of a file; other content means another size or time."""

    name: str
    size: int
    """In bytes."""
    mtime_ns: int


@dataclass(frozen=True)
class Arrival:
    """A file that was read completely, or refused."""

    version: FileVersion
    sha256: str
    seen: float
    """When the file was first seen, by the clock of `Arrivals`."""

    image_hwc: NDArray[np.uint8] | None
    """Its pixels; None if it was refused."""

    reason: str = ""
    """Why it was refused."""


@dataclass
class _File:
    """State of a file in the folder."""

    version: FileVersion
    seen: float
    since: float
    """When this version was first seen."""

    tried: float | None = None
    """When reading this version last failed."""

    is_settled: bool = False
    """Whether this version needs no more work."""


class Arrivals:
    """The new files of a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        channels: int,
        settle: float,
        patience: float,
        is_known: Callable[[FileVersion], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember the folder; nothing is read before `poll`.

        Args:
            folder: Where the files arrive.
            channels: 1 for grey, 3 for RGB.
            settle: Seconds that a file must stay unchanged before it is read.
            patience: Seconds after which a file that cannot be decoded is refused.
            is_known: Whether an earlier process has handled a version.
            clock: A monotonic clock, in seconds.
        """
        self._folder = folder
        self._channels = channels
        self._settle = settle
        self._patience = patience
        self._is_known = is_known
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._warned: set[str] = set()

    @property
    def waiting(self) -> int:
        """Number of files that still need work."""
        return sum(not file.is_settled for file in self._files.values())

    def poll(self) -> Iterator[Arrival]:
        """List the folder, then read the settled files in the order in which they arrived.

        Files are read lazily; those that the caller does not take come with the next poll.
        """
        now = self._clock()
        self._list(now)
        due = [file for file in self._files.values() if self._is_due(file, now)]
        for file in sorted(due, key=lambda file: (file.seen, file.version.mtime_ns, file.version)):
            arrival = self._read(file)
            if arrival is not None:
                file.is_settled = True
                yield arrival

    def _list(self, now: float) -> None:
        """Record which files are new, have changed or are gone."""
        try:
            found = {version.name: version for version in self._versions()}
        except OSError as error:
            self._warn(str(self._folder), f"cannot be listed: {error.strerror}; trying again")
            return
        self._warned.discard(str(self._folder))
        for name in self._files.keys() - found.keys():
            if not self._files.pop(name).is_settled:
                self._warn(name, "was renamed or deleted before it could be read")
            self._warned.discard(name)
        for name, version in found.items():
            before = self._files.get(name)
            if before is None:
                known = self._is_known(version)
                self._files[name] = _File(version, seen=now, since=now, is_settled=known)
            elif before.version != version:
                seen = now if before.is_settled else before.seen
                self._files[name] = _File(version, seen=seen, since=now)

    def _versions(self) -> Iterator[FileVersion]:
        """Yield the image files of the folder; warn once about each other image-like entry."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not is_image_name(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                # Bytes that are not UTF-8 become lone surrogates, which no text file can hold.
                if not entry.name.isprintable():
                    self._warn(entry.name, "is ignored: rename it to plain text")
                elif not stat.S_ISREG(status.st_mode):
                    self._warn(entry.name, "is ignored: it is not a regular file")
                else:
                    yield FileVersion(entry.name, status.st_size, status.st_mtime_ns)

    def _is_due(self, file: _File, now: float) -> bool:
        """Whether a file should be read now."""
        if file.is_settled:
            return False
        if file.tried is None:
            return now - file.since >= self._settle
        return now - file.tried >= self._patience

    def _read(self, file: _File) -> Arrival | None:
        """Read a file; None if it is gone, has changed, or will be tried again."""
        name, is_last = file.version.name, file.tried is not None
        file.tried = self._clock()
        try:
            content = _content(self._folder / name, file.version)
        except FileNotFoundError:
            return None
        except OSError as error:
            # Permissions and networks recover without a change of the file: never refuse it.
            if is_last:
                self._warn(name, f"cannot be read: {error.strerror}; trying again")
            return None
        if content is None:
            if is_last:
                self._warn(name, "changed while it was read; trying again")
            return None
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            if file.version.size > MAX_BYTES:
                raise DataError(f"the file has more than {MAX_BYTES} bytes.")
            image_hwc = decode_image(content, channels=self._channels)
        except DataError as error:
            return Arrival(file.version, sha256, file.seen, None, str(error)) if is_last else None
        return Arrival(file.version, sha256, file.seen, image_hwc)

    def _warn(self, name: str, fault: str) -> None:
        """Print a warning, once for each name."""
        if name not in self._warned:
            self._warned.add(name)
            print(f"warning: {name!r} {fault}.", file=sys.stderr, flush=True)


def _content(path: Path, version: FileVersion) -> bytes | None:
    """Read a version of a file, of a huge one nothing; None if it has changed since."""
    # A link that has replaced the file is not followed, and a pipe does not block.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file:  # noqa: PTH123
        content = file.read() if version.size <= MAX_BYTES else b""
        status = os.fstat(handle)
    is_same = (status.st_size, status.st_mtime_ns) == version[1:] and stat.S_ISREG(status.st_mode)
    return content if is_same else None
