"""The precropped store: every strip decoded once.

    precropped_data/
      strips.bin    the pixels of all strips, one after the other, column by column
      index.json    the offset of each strip, and a fingerprint of the source data

In column-major order the columns of a crop are contiguous, so a crop is one read and overlapping
crops share their pixels: the store contains each pixel once, 1.9 times less than the crops
themselves, and works for any crop size and stride. Masks are not stored: they are drawn from the
runs of train.csv, whose hash is part of the fingerprint.
"""

import json
import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.data.crops import Box
from steelseg.data.folder import DataSet
from steelseg.data.formats.images import read_image
from steelseg.errors import DataError
from steelseg.files.atomic import replacing, write_text
from steelseg.files.json_file import read_json
from steelseg.files.sha256 import sha256_file
from steelseg.progress import Progress, no_progress

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A strip in the store."""

    image_id: str
    height: int
    width: int
    offset: int
    """First byte in strips.bin."""
    file_size: int
    """Size of the image file, in bytes."""
    modified_ns: int
    """Modification time of the image file; checked first, because hashing is slow."""
    sha256: str
    """SHA-256 of the image file."""


@dataclass(frozen=True)
class Index:
    """Content of index.json."""

    channels: int
    """Channels of the strips, 1 or 3."""
    train_csv: str
    """SHA-256 of train.csv."""
    bytes: int
    """Size of strips.bin."""
    strips: tuple[Entry, ...]
    """The strips, in the order of strips.bin."""


class Store:
    """Reads crops of stored strips; created by `open_store`. Threads may share it."""

    def __init__(self, folder: Path, entries: Sequence[Entry], channels: int) -> None:
        """Open strips.bin; `entries` and `channels` as in index.json."""
        self._folder = folder
        self._entries = {entry.image_id: entry for entry in entries}
        self.channels = channels
        # Read, not memory-mapped: the page cache does not count as memory of this process.
        self._file = os.open(folder / "strips.bin", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle for a worker process as a path, not as an open file."""
        return Store, (self._folder, tuple(self._entries.values()), self.channels)

    def read(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one crop of a strip.

        Args:
            image_id: A strip in the store.
            box: Position and size of the crop, in pixels.

        Returns:
            Pixels, shape (h, w, channels), uint8, read-only; column-major in memory.

        Raises:
            DataError: if the file is too short.
        """
        entry = self._entries[image_id]
        column = entry.height * self.channels
        begin = entry.offset + box.left * column
        content = os.pread(self._file, box.width * column, begin)
        if len(content) < box.width * column:
            raise DataError(
                f"{self._folder / 'strips.bin'} ends within {image_id}; it was truncated after it "
                "was opened. Recreate it with: steelseg precrop CONFIG."
            )
        crop_whc = np.frombuffer(content, np.uint8).reshape(-1, entry.height, self.channels)
        return crop_whc[:, box.top : box.top + box.height].transpose(1, 0, 2)


def build_store(
    folder: Path,
    *,
    root: Path,
    image_ids: Sequence[str],
    channels: int,
    progress: Progress = no_progress,
) -> None:
    """Decode every strip once and write the store.

    Args:
        folder: Folder of the store; an existing store is replaced.
        root: Folder with train.csv and train_images/.
        image_ids: The strips to store, all of train_images/.
        channels: 1 for grayscale, 3 for RGB.
        progress: Shows how many images are decoded.

    Raises:
        DataError: if there are no images, or train.csv or an image cannot be read. An existing
            store is then complete or gone, never partly replaced.
    """
    data_set = DataSet(root)
    if not image_ids:
        raise DataError(f"{data_set.train_images} contains no images to store.")
    train_csv = sha256_file(data_set.train_csv)
    folder.mkdir(parents=True, exist_ok=True)
    # Without an index there is no store, so a killed build does not leave a broken one.
    (folder / "index.json").unlink(missing_ok=True)
    entries: list[Entry] = []
    offset = 0
    with replacing(folder / "strips.bin", "wb") as file:
        for image_id in progress(image_ids, len(image_ids), "precrop"):
            path = data_set.train_images / image_id
            image_hwc = read_image(path, channels=channels)
            file.write(np.ascontiguousarray(image_hwc.transpose(1, 0, 2)).data)
            height, width, _ = image_hwc.shape
            stat = path.stat()
            entries.append(
                Entry(
                    image_id=image_id,
                    height=height,
                    width=width,
                    offset=offset,
                    file_size=stat.st_size,
                    modified_ns=stat.st_mtime_ns,
                    sha256=sha256_file(path),
                )
            )
            offset += image_hwc.size
    index = Index(channels=channels, train_csv=train_csv, bytes=offset, strips=tuple(entries))
    text = json.dumps({"format": FORMAT, **asdict(index)}, indent=1)
    write_text(folder / "index.json", text)


def open_store(folder: Path, *, root: Path, image_ids: Sequence[str], channels: int) -> Store:
    """Open a store and check that it was created from the current data and settings.

    Image files with unchanged size and modification time count as unchanged; others are hashed.

    Args:
        folder: The store.
        root: Folder with train.csv and train_images/.
        image_ids: All images of train_images/.
        channels: As in the settings.

    Raises:
        DataError: in one line, if the store is missing, damaged, or does not match.
    """
    index, data_set = _read_index(folder), DataSet(root)
    again = "Recreate it with: steelseg precrop CONFIG."
    if index.channels != channels:
        raise DataError(
            f"{folder} was created with data.channels={index.channels}, not {channels}. {again}"
        )
    if index.train_csv != sha256_file(data_set.train_csv):
        raise DataError(f"{folder} was created from a different {data_set.train_csv}. {again}")
    if odd := {entry.image_id for entry in index.strips} ^ set(image_ids):
        raise DataError(
            f"{folder} was created from other images: {min(odd)} is only in one of store and "
            f"{data_set.train_images} ({len(odd)} in total). {again}"
        )
    for changed in _changed(index.strips, data_set.train_images):
        raise DataError(f"{folder} was created before {changed} changed. {again}")
    store_bytes = folder / "strips.bin"
    if not store_bytes.exists() or store_bytes.stat().st_size != index.bytes:
        raise DataError(f"{store_bytes} does not have the size in its index. {again}")
    return Store(folder, index.strips, channels)


def _read_index(folder: Path) -> Index:
    """Read index.json, or raise DataError."""
    path = folder / "index.json"
    if not path.exists():
        raise DataError(
            f"There is no precropped store in {folder}. Create it with: steelseg precrop CONFIG."
        )
    remedy = "Recreate the store with: steelseg precrop CONFIG."

    def parse(content: dict[str, Any]) -> Index:
        if content["format"] != FORMAT:
            raise DataError(f"{path} has a different format version. {remedy}")
        return _parse_index(content)

    return read_json(path, parse, remedy=remedy)


def _parse_index(content: dict[str, Any]) -> Index:
    """Parse index.json; any exception means that the file is damaged."""
    index = Index(
        channels=content["channels"],
        train_csv=content["train_csv"],
        bytes=content["bytes"],
        strips=tuple(Entry(**entry) for entry in content["strips"]),
    )
    end = 0
    for entry in index.strips:
        if entry.offset != end:
            raise ValueError(f"{entry.image_id} does not start where the previous strip ends")
        end += entry.height * entry.width * index.channels
    if end != index.bytes:
        raise ValueError(f"the strips end at byte {end}, not {index.bytes}")
    return index


def _changed(entries: Iterable[Entry], folder: Path) -> Iterable[Path]:
    """Yield the image files that have changed since the store was created."""
    for entry in entries:
        path = folder / entry.image_id
        stat = path.stat()
        known = stat.st_size == entry.file_size and stat.st_mtime_ns == entry.modified_ns
        if not known and sha256_file(path) != entry.sha256:
            yield path
