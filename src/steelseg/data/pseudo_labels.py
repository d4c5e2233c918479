"""A folder of pseudo-labels: predictions for unlabelled strips, one set per fold.

    pseudo/
      index.json          folder of the images, the networks (teachers), and how they were selected
      folds.csv           the folds of the teachers
      fold_K/train.csv    the masks, in the form of train.csv; clean strips have no row
      fold_K/strips.csv   every strip with its verdict, size and SHA-256; only "kept" ones are used

The labels in fold_K come only from teachers that were not trained on the held-out strips of fold K.
The images stay in their folder; a changed image is rejected.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.data.formats.annotations import Labels, read_labels
from steelseg.data.formats.images import hash_image
from steelseg.data.formats.mask_csv import SEPARATE
from steelseg.errors import DataError
from steelseg.files.atomic import replacing, write_text
from steelseg.files.json_file import read_json
from steelseg.files.sha256 import sha256_file

FORMAT = 1
KEPT = "kept"

_INDEX = "index.json"
_STRIPS = ("image_id", "height", "width", "sha256", "verdict", "reason")


@dataclass(frozen=True)
class Verdict:
    """Whether a strip is used, and why."""

    image_id: str
    """File name of the image."""

    size: tuple[int, int]
    """Height and width, in pixels."""

    sha256: str
    """SHA-256 of the image file."""

    verdict: str
    """kept, or a word that says why the strip is not used."""

    reason: str = ""
    """The class and value that decided, or the strip that it is a copy of."""


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of one fold."""

    images: Path
    """Folder of the images."""

    labels: Labels
    """Masks of the kept strips, including clean ones."""

    class_names: tuple[str, ...]
    """Class names of the teachers."""

    sha256: str
    """SHA-256 over masks, verdicts and image hashes."""

    folds_csv: Path
    """The folds of the teachers."""


def is_pseudo_folder(folder: Path) -> bool:
    """Whether a folder contains pseudo-labels."""
    return (folder / _INDEX).is_file()


def write_index(folder: Path, content: Mapping[str, Any]) -> None:
    """Write index.json: `images`, `class_names`, and further information for the user."""
    write_text(folder / _INDEX, json.dumps({"format": FORMAT, **content}, indent=1) + "\n")


def write_fold(
    folder: Path, fold: int, strips: Iterable[Verdict], masks: Mapping[str, Sequence[str]]
) -> None:
    """Write the labels of one fold.

    Args:
        folder: Folder of the pseudo-labels.
        fold: Number of the fold.
        strips: All strips.
        masks: RLE of each class, "" for an empty mask, of every kept strip.
    """
    with replacing(folder / f"fold_{fold}" / "train.csv") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(SEPARATE)
        for image_id, texts in masks.items():
            rows.writerows((image_id, k, text) for k, text in enumerate(texts, start=1) if text)
    with replacing(folder / f"fold_{fold}" / "strips.csv") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_STRIPS)
        rows.writerows((s.image_id, *s.size, s.sha256, s.verdict, s.reason) for s in strips)


def encode_masks(mask_chw: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the RLE of each class of a strip; "" for an empty mask."""
    return tuple(rle.encode(mask_hw) for mask_hw in mask_chw)


def read_pseudo_labels(folder: Path, fold: int) -> PseudoLabels:
    """Read the labels of one fold; images are hashed, not decoded.

    Raises:
        DataError: if they are missing or damaged, or an image has changed or is missing.
    """
    again = "Recreate them with: steelseg pseudo RUN --images DIR."
    if not is_pseudo_folder(folder):
        raise DataError(f"{folder} contains no pseudo-labels: {_INDEX} is missing. {again}")
    place = folder / f"fold_{fold}"
    if not place.is_dir():
        raise DataError(f"{folder} has no pseudo-labels for fold {fold}. {again}")

    def parse(index: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
        if index["format"] != FORMAT:
            raise DataError(f"{folder / _INDEX} has a different format version. {again}")
        return Path(index["images"]), tuple(map(str, index["class_names"]))

    images, names = read_json(folder / _INDEX, parse, remedy=again)
    kept = [strip for strip in read_verdicts(place / "strips.csv") if strip.verdict == KEPT]
    if not images.is_dir():
        raise DataError(
            f"{folder / _INDEX} says that the images are in {images}, which is not a folder. "
            'Restore the folder, or change "images" in this file.'
        )
    for strip in kept:
        if hash_image(images / strip.image_id) != strip.sha256:
            raise DataError(f"{images / strip.image_id} has changed since it was labelled. {again}")
    sizes = {strip.image_id: strip.size for strip in kept}
    labels = read_labels(place / "train.csv", sizes, num_classes=len(names))
    digests = "".join(sha256_file(place / name) for name in ("train.csv", "strips.csv"))
    sha256 = hashlib.sha256(digests.encode()).hexdigest()
    return PseudoLabels(images, labels, names, sha256, folder / "folds.csv")


def read_verdicts(path: Path) -> list[Verdict]:
    """Read strips.csv.

    Raises:
        DataError: if it cannot be read or is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != _STRIPS:
            raise ValueError("another header")
        if any(Path(row[0]).name != row[0] for row in rows):
            raise ValueError("a path in place of a name")
        return [
            Verdict(name, (int(height), int(width)), sha256, verdict, reason)
            for name, height, width, sha256, verdict, reason in rows
        ]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error):
        raise DataError(f"{path} is damaged. Expected columns {','.join(_STRIPS)}.") from None
