"""Labels: `train.csv` in both of its forms, and the masks of every image.

Images without a row, or with empty rows only, are clean.

`read_rows` reads the text and reports every invalid row; `parse_rows` checks the masks against the
image sizes. Nothing is repaired. Labels are kept as runs until a mask is drawn, so the labels of
12,568 strips take 15 MB.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.data.crops import Box
from steelseg.data.fault import Fault
from steelseg.data.formats import rle
from steelseg.data.formats.mask_csv import name_cells, read_table
from steelseg.errors import DataError

_CLASS_ID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One well-formed row of train.csv."""

    line: int
    """Line of the file, from 1."""

    image_id: str
    """File name of the image, with its extension."""

    class_id: int
    """Class, from 1."""

    rle: str
    """The mask; "" is empty."""


@dataclass(frozen=True)
class Labels:
    """The masks of a set of images, as runs."""

    num_classes: int
    """Number of classes C."""

    sizes: Mapping[str, tuple[int, int]]
    """Height and width of each image, by image_id, sorted; includes clean images."""

    runs: Mapping[tuple[str, int], rle.Runs]
    """Runs of each non-empty mask, by (image_id, class_id)."""

    def class_ids(self, image_id: str) -> tuple[int, ...]:
        """Return the class ids of an image, ascending."""
        return tuple(k for k in range(1, self.num_classes + 1) if (image_id, k) in self.runs)

    def draw(self, image_id: str, box: Box | None = None) -> NDArray[np.bool_]:
        """Draw the masks of an image, or of a part of it.

        Args:
            image_id: An image of `sizes`.
            box: The part; None draws the whole image.

        Returns:
            Masks, shape (C, h, w), bool.
        """
        height, width = self.sizes[image_id]
        box = box or Box(0, 0, height, width)
        mask_chw = np.empty((self.num_classes, box.height, box.width), dtype=np.bool_)
        self.draw_into(mask_chw.view(np.uint8), image_id, box)
        return mask_chw

    def draw_into(self, mask_chw: NDArray[np.uint8], image_id: str, box: Box) -> None:
        """Draw the masks of a part of an image into `mask_chw`, shape (C, h, w), as 0 or 1."""
        height, _ = self.sizes[image_id]
        for class_id, mask in enumerate(mask_chw, start=1):
            runs = self.runs.get((image_id, class_id))
            if runs is None:
                mask.fill(0)
            else:
                columns_wh = rle.to_mask(runs, height, box.width, box.left).T.view(np.uint8)
                # Ten times as fast as a copy of a transposed view in numpy.
                cv2.transpose(columns_wh[:, box.top : box.top + box.height], mask)


def read_rows(path: Path, *, num_classes: int) -> tuple[list[Row], list[Fault]]:
    """Read train.csv.

    Args:
        path: The file, in either form; columns in any order.
        num_classes: Highest ClassId.

    Returns:
        The valid rows, and a Fault for every other row.
    """
    try:
        table = read_table(path)
    except DataError as error:
        return [], [Fault(str(path), 0, str(error))]
    rows: list[Row] = []
    faults: list[Fault] = []
    seen: dict[tuple[str, int], int] = {}
    for line, texts in table.rows:
        try:
            cells = name_cells(table.form, texts)
            class_id = _class_id(cells.class_text, num_classes)
            _reject_duplicate(seen, cells.image_id, class_id, line)
        except DataError as error:
            faults.append(Fault(str(path), line, str(error)))
        else:
            rows.append(Row(line, cells.image_id, class_id, cells.rle))
    return rows, faults


def _class_id(text: str, num_classes: int) -> int:
    """Read a ClassId, or raise DataError."""
    if not _CLASS_ID.fullmatch(text) or int(text) > num_classes:
        raise DataError(
            f"unknown class {text[:20]!r}; classes are 1 to {num_classes} (data.num_classes)."
        )
    return int(text)


def _reject_duplicate(
    seen: dict[tuple[str, int], int], image_id: str, class_id: int, line: int
) -> None:
    """Record the row, or raise DataError if an earlier row has the same image and class."""
    first = seen.setdefault((image_id, class_id), line)
    if first != line:
        raise DataError(f"{image_id} class {class_id} is a duplicate of row {first}.")


def parse_rows(
    path: Path, rows: Sequence[Row], sizes: Mapping[str, tuple[int, int]], *, num_classes: int
) -> tuple[Labels, list[Fault]]:
    """Parse each mask for the size of its image.

    Args:
        path: File of the rows, for the messages.
        rows: From `read_rows`; rows of images without a size are skipped.
        sizes: Height and width of each readable image.
        num_classes: Number of classes C.

    Returns:
        The labels, and a Fault for every mask that is malformed or exceeds its image.
    """
    runs: dict[tuple[str, int], rle.Runs] = {}
    faults: list[Fault] = []
    for row in rows:
        if row.image_id not in sizes or not row.rle:
            continue
        height, width = sizes[row.image_id]
        try:
            runs[row.image_id, row.class_id] = rle.parse(row.rle, height * width)
        except DataError as error:
            faults.append(Fault(str(path), row.line, f"{row.image_id}: {error}"))
    return Labels(num_classes, dict(sorted(sizes.items())), runs), faults


def read_labels(path: Path, sizes: Mapping[str, tuple[int, int]], *, num_classes: int) -> Labels:
    """Read the labels of images whose sizes are known.

    Args:
        path: train.csv.
        sizes: Height and width of each image; rows of other images are skipped.
        num_classes: Number of classes C.

    Raises:
        DataError: with one line per fault.
    """
    rows, bad_rows = read_rows(path, num_classes=num_classes)
    labels, bad_masks = parse_rows(path, rows, sizes, num_classes=num_classes)
    if faults := sorted(bad_rows + bad_masks):
        raise DataError("\n".join(map(str, faults)))
    return labels
