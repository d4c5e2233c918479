"""The precropped store: every strip decoded once, memory-mapped.

    precropped_data/
      strips.bin    the pixels of all strips, one after the other, column by column
      index.json    where each strip begins, and the fingerprint of what the store was made from

A column-major strip keeps the columns of a crop side by side, so a crop is one read and
overlapping crops share their pixels: the store holds each pixel once, 1.9 times less than
the crops themselves, and serves any crop size and stride. Masks are not stored: they are
drawn from the runs of train.csv, whose hash is part of the fingerprint.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.atomic import replacing, write_text
from steelseg.data.check import Progress
from steelseg.data.crops import Box
from steelseg.data.images import read_image
from steelseg.errors import DataError

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One strip of the store."""

    image_id: str
    height: int
    width: int
    offset: int
    """First byte in strips.bin."""
    file_size: int
    """Bytes of the image file."""
    modified_ns: int
    """When the image file was last written; a cheap first look before its hash."""
    sha256: str
    """Hash of the image file."""


class Store:
    """Windows of stored strips; `open_store` makes one."""

    def __init__(self, folder: Path, entries: Sequence[Entry], channels: int) -> None:
        """Map strips.bin; `entries` and `channels` as index.json has them."""
        self._path = folder / "strips.bin"
        self._entries = {entry.image_id: entry for entry in entries}
        self._channels = channels
        self._pixels = np.memmap(self._path, dtype=np.uint8, mode="r")

    def __getstate__(self) -> dict[str, object]:
        """Travel to a worker process as a path, not as pixels."""
        return {**self.__dict__, "_pixels": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Map the file again in a worker process."""
        self.__dict__.update(state)
        self._pixels = np.memmap(self._path, dtype=np.uint8, mode="r")

    def read(self, image_id: str, box: Box) -> NDArray[np.uint8]:
        """Read one window of a strip.

        Args:
            image_id: A strip of the store.
            box: The window, in pixels.

        Returns:
            Pixels, shape (h, w, channels), uint8; a read-only view of the file.
        """
        entry = self._entries[image_id]
        column = entry.height * self._channels
        begin = entry.offset + box.left * column
        columns = self._pixels[begin : begin + box.width * column]
        window_whc = columns.reshape(box.width, entry.height, self._channels)
        return window_whc[:, box.top : box.top + box.height].transpose(1, 0, 2)


def build_store(
    folder: Path,
    *,
    root: Path,
    image_ids: Sequence[str],
    channels: int,
    progress: Progress = lambda loop, _length, _title: loop,
) -> None:
    """Decode every strip once and write the store.

    Args:
        folder: Where the store goes; an older store there is replaced.
        root: Folder with train.csv and train_images/.
        image_ids: The strips to store, all of train_images/.
        channels: 1 stores grey, 3 stores RGB.
        progress: Shows how far the decoding is.

    Raises:
        DataError: if an image cannot be read; an older store is gone then, never half new.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The index is what makes a store: without it, a killed build leaves no store at all.
    (folder / "index.json").unlink(missing_ok=True)
    entries: list[Entry] = []
    offset = 0
    with replacing(folder / "strips.bin", "wb") as file:
        for number in progress(range(len(image_ids)), len(image_ids), "precrop"):
            path = root / "train_images" / image_ids[number]
            image_hwc = read_image(path, channels=channels)
            file.write(np.ascontiguousarray(image_hwc.transpose(1, 0, 2)).data)
            height, width, _ = image_hwc.shape
            stat = path.stat()
            entries.append(
                Entry(
                    image_id=image_ids[number],
                    height=height,
                    width=width,
                    offset=offset,
                    file_size=stat.st_size,
                    modified_ns=stat.st_mtime_ns,
                    sha256=_hash(path),
                )
            )
            offset += image_hwc.size
    index = {
        "format": FORMAT,
        "channels": channels,
        "train_csv": _hash(root / "train.csv"),
        "bytes": offset,
        "strips": [asdict(entry) for entry in entries],
    }
    write_text(folder / "index.json", json.dumps(index, indent=1))


def open_store(folder: Path, *, root: Path, image_ids: Sequence[str], channels: int) -> Store:
    """Open a store, or refuse it when it was made from something else.

    An image file whose size and time are unchanged is taken as unchanged; any other is hashed.

    Args:
        folder: The store.
        root: Folder with train.csv and train_images/, as they are now.
        image_ids: All images of train_images/.
        channels: As in the settings.

    Raises:
        DataError: in one line, if there is no store, it is damaged, or data or settings differ.
    """
    index = _read_index(folder)
    entries = [Entry(**entry) for entry in index["strips"]]
    again = "Make it again: steelseg precrop CONFIG."
    if index["channels"] != channels:
        raise DataError(
            f"{folder} was made with data.channels={index['channels']}, not {channels}. {again}"
        )
    if index["train_csv"] != _hash(root / "train.csv"):
        raise DataError(f"{folder} was made from another {root / 'train.csv'}. {again}")
    if odd := {entry.image_id for entry in entries} ^ set(image_ids):
        raise DataError(
            f"{folder} was made from other images: {min(odd)} is only in one of store and "
            f"{root / 'train_images'} ({len(odd)} such). {again}"
        )
    for changed in _changed(entries, root / "train_images"):
        raise DataError(f"{folder} was made before {changed} was changed. {again}")
    store_bytes = folder / "strips.bin"
    if not store_bytes.exists() or store_bytes.stat().st_size != index["bytes"]:
        raise DataError(f"{store_bytes} is not as long as its index says. {again}")
    return Store(folder, entries, channels)


def _read_index(folder: Path) -> dict[str, Any]:
    """Read index.json, or raise DataError."""
    path = folder / "index.json"
    if not path.exists():
        raise DataError(
            f"There is no precropped store in {folder}. Make it: steelseg precrop CONFIG."
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(
            f"{path} is damaged. Make the store again: steelseg precrop CONFIG."
        ) from None
    if index.get("format") != FORMAT:
        raise DataError(
            f"{path} is of another version. Make the store again: steelseg precrop CONFIG."
        )
    return index


def _changed(entries: Iterable[Entry], folder: Path) -> Iterable[Path]:
    """Yield the image files that are not what the store was made from."""
    for entry in entries:
        path = folder / entry.image_id
        stat = path.stat()
        known = stat.st_size == entry.file_size and stat.st_mtime_ns == entry.modified_ns
        if not known and _hash(path) != entry.sha256:
            yield path


def _hash(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
