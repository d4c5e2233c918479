"""results.jsonl: one line for every strip, and the record of which files are done.

A line is on disk before `add` returns. A killed process leaves complete lines and at most a part of
one at the end, which is removed when the file is opened again. The files that a line names are
done, so a new process continues where the last one stopped. One process writes at a time.

A defect is an 8-connected component of a mask: class, run-length encoding in the whole strip, box
[left, top, width, height], area and score (mean probability of its pixels). A refused strip has the
reason in `refused` instead of `defects`, so that it is not mistaken for a clean one.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.errors import ConfigError, DataError
from steelseg.files.atomic import sync_folder
from steelseg.files.lock import open_locked
from steelseg.watch.arrivals import FileVersion
from steelseg.watch.pieces import Strip
from steelseg.writers.exchange import class_components

RESULTS = "results.jsonl"


class Results:
    """The lines written so far, open to append."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and read which strips are done.

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
        # Digests instead of names, because a production line runs for years.
        self._done: set[bytes] = set()
        self.size = 0
        """Bytes that are safely on disk."""
        try:
            self._load()
        except BaseException:
            os.close(self._handle)
            raise

    def __enter__(self) -> Self:
        """Do nothing: the file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, so that another process can write to it."""
        os.close(self._handle)

    def _load(self) -> None:
        """Record every complete line, and remove an incomplete one."""
        with open(self._handle, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(json.loads(line))
                except (ValueError, TypeError, LookupError, RecursionError):
                    raise DataError(
                        f"{self.path}:{number}: the line is damaged. Repair or remove it, or "
                        "choose another --out."
                    ) from None
                self.size += len(line)
        self._cut()

    def _cut(self) -> None:
        """Remove an incomplete line."""
        os.ftruncate(self._handle, self.size)
        os.lseek(self._handle, self.size, os.SEEK_SET)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line; it is on disk when this returns.

        Raises:
            OSError: if it cannot be written; no part of it remains then.
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
        """Record a strip as done; its files too, unless another piece may still arrive."""
        reason = line.get("refused", "")
        self._done.add(_digest(line["image_id"], line["sha256"], reason))
        for file in () if reason else line["files"]:
            self._done.add(_digest(file["name"], file["size"], file["mtime_ns"]))

    def has_strip(self, image_id: str, sha256: str, reason: str = "") -> bool:
        """Whether a strip of this name and content has a line, or one with this reason."""
        return _digest(image_id, sha256, reason) in self._done

    def has_file(self, version: FileVersion) -> bool:
        """Whether this version of a file is part of a strip that has a line."""
        return _digest(*version) in self._done


def result_line(
    strip: Strip,
    mask_chw: NDArray[np.bool_],
    probs_chw: NDArray[np.float32],
    *,
    class_names: Sequence[str],
    model_sha256: str,
    lag_s: float,
) -> dict[str, Any]:
    """Return the line of a strip that was predicted.

    Args:
        strip: The strip and its files.
        mask_chw: Its masks, shape (C, H, W).
        probs_chw: Its probabilities, shape (C, H, W).
        class_names: Name of each class, length C.
        model_sha256: Identity of the model, `Predictor.sha256`.
        lag_s: Seconds since its last file was first seen.
    """
    assert len(class_names) == len(mask_chw), (class_names, mask_chw.shape)
    _, height, width = mask_chw.shape
    return {
        **_origin(strip, lag_s=lag_s),
        "model_sha256": model_sha256,
        "height": height,
        "width": width,
        "max_probability": [round(float(probs_hw.max()), 6) for probs_hw in probs_chw],
        "defects": [
            {
                "class_id": class_id,
                "class_name": class_names[class_id - 1],
                "rle": rle.join(region.runs),
                "bbox": region.bbox,
                "area": region.area,
                "score": region.score,
            }
            for class_id, region in class_components(mask_chw, probs_chw)
        ],
    }


def refused_line(strip: Strip, reason: str, *, lag_s: float) -> dict[str, Any]:
    """Return the line of a strip that could not be predicted."""
    return {**_origin(strip, lag_s=lag_s), "refused": reason}


def _origin(strip: Strip, *, lag_s: float) -> dict[str, Any]:
    """Return the values that every line has."""
    return {
        "image_id": strip.image_id,
        "sha256": strip.sha256,
        "files": [{**version._asdict(), "sha256": digest} for version, digest in strip.files],
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "lag_s": round(lag_s, 3),
    }


def _digest(*parts: object) -> bytes:
    """Return a short digest of some values."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
