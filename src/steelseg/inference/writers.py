"""The output formats of a prediction, by the name a user types.

Every format has one writer with the same `add`, so that predicting does not know the format.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from steelseg.data.exchange import CocoWriter, JsonlWriter, PngWriter
from steelseg.data.mask_csv import JOINED
from steelseg.inference.submission import SubmissionWriter

OutputFormat = Literal["csv", "coco", "png", "jsonl"]

FILE_NAMES: dict[OutputFormat, str] = {
    "csv": "submission.csv",
    "coco": "predictions.json",
    "png": "masks",
    "jsonl": "predictions.jsonl",
}


class MaskWriter(Protocol):
    """Writes the masks of one image after the other, inside a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def add(self, image_id: str, mask_chw: NDArray[np.bool_], probs_chw: NDArray[Any]) -> None:
        """Write one image.

        Args:
            image_id: File name of the image.
            mask_chw: Masks, shape (C, H, W).
            probs_chw: Probabilities, shape (C, H, W), in [0, 1] or 0..255 as uint8.
        """


def open_writer(
    format: OutputFormat,
    output_dir: Path,
    *,
    class_names: Sequence[str],
    columns: Sequence[str] = JOINED,
) -> MaskWriter:
    """Make the writer of a format.

    Args:
        format: csv, coco, png or jsonl.
        output_dir: Folder that gets the file, or the folder of PNGs, named in `FILE_NAMES`.
        class_names: Name of each class, class 1 first.
        columns: Columns of submission.csv, in order; the other formats have none.

    Raises:
        ConfigError: if the columns are not those of a submission.
    """
    path = output_dir / FILE_NAMES[format]
    match format:
        case "csv":
            return SubmissionWriter(path, columns=columns, num_classes=len(class_names))
        case "coco":
            return CocoWriter(path, class_names)
        case "png":
            return PngWriter(path, class_names)
        case "jsonl":
            return JsonlWriter(path, class_names)
