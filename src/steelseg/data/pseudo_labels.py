"""Pseudo-labels in a folder: what networks say of strips that nobody has labelled, fold by fold.

    pseudo/
      index.json          where the images are, which networks labelled them, what was kept
      folds.csv           the folds of those networks: what each of them has not seen
      fold_K/train.csv    the masks, in the project's form; strips without a defect have no row
      fold_K/strips.csv   every strip with its verdict, size and SHA-256; only "kept" ones count

fold_K is the word of networks that never saw the held-out strips of fold K, and of no others. The
images stay where they are; a changed one is refused.
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
    """What became of a strip."""

    image_id: str
    """File name of the image."""

    size: tuple[int, int]
    """Height and width, in pixels."""

    sha256: str
    """Of the image file."""

    verdict: str
    """kept, or in a word why not."""

    reason: str = ""
    """The class and the figure that decided, or the strip that it is a copy of."""


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of one fold."""

    images: Path
    """Folder of the images."""

    labels: Labels
    """Masks of the strips that were kept; clean ones are there too."""

    class_names: tuple[str, ...]
    """Of the networks that labelled them."""

    sha256: str
    """Over masks, verdicts and images."""

    folds_csv: Path
    """The folds of the networks."""


def is_pseudo_folder(folder: Path) -> bool:
    """Whether pseudo-labels were written to a folder."""
    return (folder / _INDEX).is_file()


def write_index(folder: Path, content: Mapping[str, Any]) -> None:
    """Write index.json: `images` and `class_names`, and what else is worth knowing."""
    write_text(folder / _INDEX, json.dumps({"format": FORMAT, **content}, indent=1) + "\n")


def write_fold(
    folder: Path, fold: int, strips: Iterable[Verdict], masks: Mapping[str, Sequence[str]]
) -> None:
    """Write the labels of one fold.

    Args:
        folder: Of the pseudo-labels.
        fold: Number of the fold.
        strips: Every strip.
        masks: RLE of each class, "" where it has no mask, of every strip that was kept.
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
    """RLE of each class of a strip, "" of an empty one."""
    return tuple(rle.encode(mask_hw) for mask_hw in mask_chw)


def read_pseudo_labels(folder: Path, fold: int) -> PseudoLabels:
    """Read the labels of one fold; images are hashed, not decoded.

    Raises:
        DataError: if there are none, they are damaged, or an image has changed or is gone.
    """
    again = "Make them again: steelseg pseudo RUN --images DIR."
    if not is_pseudo_folder(folder):
        raise DataError(f"{folder} holds no pseudo-labels: it has no {_INDEX}. {again}")
    place = folder / f"fold_{fold}"
    if not place.is_dir():
        raise DataError(f"{folder} has no pseudo-labels of fold {fold}. {again}")

    def parse(index: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
        if index["format"] != FORMAT:
            raise DataError(f"{folder / _INDEX} is of another version. {again}")
        return Path(index["images"]), tuple(map(str, index["class_names"]))

    images, names = read_json(folder / _INDEX, parse, remedy=again)
    kept = [strip for strip in read_verdicts(place / "strips.csv") if strip.verdict == KEPT]
    if not images.is_dir():
        raise DataError(
            f"{folder / _INDEX} says that the images are in {images}, which is not a folder. Put "
            'them back, or name their new place under "images" there.'
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
