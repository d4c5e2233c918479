"""The output formats of a prediction, by the name a user types.

Every format gives the same kind of function, so that predicting does not know the format.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from steelseg.data.exchange import Add, coco_writer, jsonl_writer, png_writer
from steelseg.data.mask_csv import JOINED
from steelseg.inference.submission import submission_writer

OutputFormat = Literal["csv", "coco", "png", "jsonl"]

FILE_NAMES: dict[OutputFormat, str] = {
    "csv": "submission.csv",
    "coco": "predictions.json",
    "png": "masks",
    "jsonl": "predictions.jsonl",
}


def open_writer(
    format: OutputFormat,
    output_dir: Path,
    *,
    class_names: Sequence[str],
    columns: Sequence[str] = JOINED,
) -> AbstractContextManager[Add]:
    """Make the writer of a format.

    Args:
        format: csv, coco, png or jsonl.
        output_dir: Folder that gets the file, or the folder of PNGs, named in `FILE_NAMES`.
        class_names: Name of each class, class 1 first.
        columns: Columns of submission.csv, in order; the other formats have none.
    """
    path = output_dir / FILE_NAMES[format]
    match format:
        case "csv":
            return submission_writer(path, columns=columns, num_classes=len(class_names))
        case "coco":
            return coco_writer(path, class_names)
        case "png":
            return png_writer(path, class_names)
        case "jsonl":
            return jsonl_writer(path, class_names)
