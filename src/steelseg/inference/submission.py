"""The file that Kaggle scores: one row for each (image, class) pair, empty masks included.

`columns` is one of the two forms of `steelseg.data.mask_csv`, in the order of the sample, so
that a submission gets exactly its header. Rows are written as images come in, so memory does
not grow. Nothing here reads: `mask_csv` does.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from steelseg.atomic import replacing
from steelseg.data import rle
from steelseg.data.mask_csv import JOINED, SEPARATE, is_form
from steelseg.errors import ConfigError


class SubmissionWriter:
    """Writes a submission row by row; the file appears when the `with` block ends well."""

    def __init__(self, path: Path, *, columns: Sequence[str], num_classes: int) -> None:
        """Check the arguments; the file is opened on entry.

        Args:
            path: The CSV file to write.
            columns: Column names of either form, in the order to write them.
            num_classes: Rows of each image.

        Raises:
            ConfigError: if the columns are of neither form.
        """
        if not is_form(columns):
            raise ConfigError(
                f"columns is {','.join(columns)!r}. A submission has the columns "
                f"{','.join(JOINED)} or {','.join(SEPARATE)}, in any order."
            )
        self._columns = tuple(columns)
        self._num_classes = num_classes
        self._life = self._table(path)

    def __enter__(self) -> Self:
        self._life.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._life.__exit__(kind, error, trace)

    @contextmanager
    def _table(self, path: Path) -> Iterator[None]:
        with replacing(path) as file:
            self._rows = csv.DictWriter(
                file, self._columns, extrasaction="ignore", lineterminator="\n"
            )
            self._rows.writeheader()
            yield

    def add(
        self,
        image_id: str,
        mask_chw: NDArray[np.bool_],
        probs_chw: NDArray[Any],  # noqa: ARG002 - a submission holds no scores
    ) -> None:
        """Write the rows of one image.

        Args:
            image_id: File name of the image.
            mask_chw: Masks, shape (C, H, W), C = num_classes.
            probs_chw: Not used: a submission holds no scores.
        """
        assert len(mask_chw) == self._num_classes, mask_chw.shape
        for class_id, mask in enumerate(mask_chw, start=1):
            row = {
                "ImageId_ClassId": f"{image_id}_{class_id}",
                "ImageId": image_id,
                "ClassId": class_id,
                "EncodedPixels": rle.encode(mask),
            }
            self._rows.writerow(row)
