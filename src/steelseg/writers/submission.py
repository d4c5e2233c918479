"""Write submission.csv for Kaggle: one row per image and class, including empty masks.

`columns` is one of the two forms of `data.formats.mask_csv`, in the order of the sample
submission, so that the header is the same. Rows are written one image at a time, so memory does not
grow.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import rle
from steelseg.data.formats.mask_csv import JOINED, SEPARATE, is_form
from steelseg.errors import ConfigError
from steelseg.files.atomic import replacing
from steelseg.writers.exchange import AddRecord, Record


def csv_record(mask_chw: NDArray[np.bool_]) -> Record:
    """Return the submission record of an image: the RLE of each class."""
    return [rle.encode(mask) for mask in mask_chw]


@contextmanager
def submission_writer(path: Path, *, columns: Sequence[str]) -> Iterator[AddRecord]:
    """Write a submission; the file is created when the `with` block ends without an error.

    Args:
        path: The CSV file to write.
        columns: Column names of either form, in the order to write them.

    Yields:
        A function that writes a `csv_record`.

    Raises:
        ConfigError: if the columns have neither form.
    """
    if not is_form(columns):
        raise ConfigError(
            f"columns is {','.join(columns)!r}. A submission has the columns "
            f"{','.join(JOINED)} or {','.join(SEPARATE)}, in any order."
        )
    with replacing(path) as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()

        def add(image_id: str, record: Record) -> None:
            for class_id, text in enumerate(record, start=1):
                row = {
                    "ImageId_ClassId": f"{image_id}_{class_id}",
                    "ImageId": image_id,
                    "ClassId": class_id,
                    "EncodedPixels": text,
                }
                rows.writerow(row)

        yield add
