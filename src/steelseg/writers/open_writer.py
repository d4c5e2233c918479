"""The output formats of a prediction, by the name that a user types.

Text formats are written in two steps: the record of each image is created when it is predicted,
and written when all images are. So prediction code does not depend on the format. PNG files are
written immediately.
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
    """Return the record of one image in a format.

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
    """Open the writer of a format.

    Args:
        format: csv, coco or jsonl.
        output_dir: Folder of the file, which is named as in `FILE_NAMES`.
        class_names: Name of each class, starting with class 1.
        columns: Columns of submission.csv, in order; ignored by other formats.
    """
    path = output_dir / FILE_NAMES[format]
    match format:
        case "csv":
            return submission_writer(path, columns=columns)
        case "coco":
            return coco_writer(path, class_names)
        case "jsonl":
            return jsonl_writer(path)
