"""The output formats of a prediction, by the name a user types.

A text format is found and written in two steps: what it says of an image waits as plain values
until all images are predicted. Nothing that predicts knows the format. PNG files are written at
once, each whole.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats.mask_csv import JOINED
from steelseg.writers.exchange import (
    AddRecord,
    Record,
    coco_record,
    coco_writer,
    jsonl_record,
    jsonl_writer,
)
from steelseg.writers.submission import csv_record, submission_writer

TextFormat = Literal["csv", "coco", "jsonl"]

OutputFormat = TextFormat | Literal["png"]

FILE_NAMES: dict[OutputFormat, str] = {
    "csv": "submission.csv",
    "coco": "predictions.json",
    "png": "masks",
    "jsonl": "predictions.jsonl",
}


def make_record(
    format: TextFormat,
    mask_chw: NDArray[np.bool_],
    probs_chw: NDArray[Any],
    *,
    class_names: Sequence[str],
) -> Record:
    """Find what a format says of one image.

    Args:
        format: csv, coco or jsonl.
        mask_chw: Masks, shape (C, H, W).
        probs_chw: Probabilities, shape (C, H, W), in [0, 1].
        class_names: Name of each class, length C.
    """
    assert len(mask_chw) == len(class_names), (mask_chw.shape, class_names)
    match format:
        case "csv":
            return csv_record(mask_chw)
        case "coco":
            return coco_record(mask_chw, probs_chw)
        case "jsonl":
            return jsonl_record(mask_chw, probs_chw, class_names)


def open_writer(
    format: TextFormat,
    output_dir: Path,
    *,
    class_names: Sequence[str],
    columns: Sequence[str] = JOINED,
) -> AbstractContextManager[AddRecord]:
    """Make the writer of a format.

    Args:
        format: csv, coco or jsonl.
        output_dir: Folder that gets the file named in `FILE_NAMES`.
        class_names: Name of each class, class 1 first.
        columns: Columns of submission.csv, in order; the other formats have none.
    """
    path = output_dir / FILE_NAMES[format]
    match format:
        case "csv":
            return submission_writer(path, columns=columns)
        case "coco":
            return coco_writer(path, class_names)
        case "jsonl":
            return jsonl_writer(path)
