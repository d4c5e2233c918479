"""The file that Kaggle scores: one row for each (image, class) pair, empty masks included.

Two forms exist: the columns ImageId_ClassId ("0000f269f.jpg_1") and EncodedPixels, or the
columns ImageId, ClassId and EncodedPixels. A form is the tuple of its column names in the
order of the file, so that a submission gets exactly the header of the sample.

Rows are written as images come in, so memory does not grow. A fault in a file is named
`file:row: reason`; the header is row 1. `rle` is handed through: `steelseg.data.rle` reads it.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from steelseg.atomic import replacing
from steelseg.data import rle
from steelseg.errors import ConfigError, DataError

Row = dict[str, str]

JOINED = ("ImageId_ClassId", "EncodedPixels")
SEPARATE = ("ImageId", "ClassId", "EncodedPixels")

_FORMS = f"A submission has the columns {','.join(JOINED)} or, in any order, {','.join(SEPARATE)}."

_CLASS = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

# The csv module stops at 128 KiB by default, which the mask of a noisy class can pass.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class SampleSubmission:
    """What `sample_submission.csv` asks for."""

    form: tuple[str, ...]
    """Column names, in the order of the file."""

    image_ids: tuple[str, ...]
    """Images to predict, in the order of the file, each once."""


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
        if not _is_form(columns):
            raise ConfigError(f"columns is {','.join(columns)!r}. {_FORMS}")
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


def read_sample(path: Path) -> SampleSubmission:
    """Read the form and the images of a sample submission.

    Masks are placeholders there, and so are the classes in a column of their own: a row
    "0000f269f.jpg,1 409600,0" asks for every class of its image.

    Raises:
        DataError: if the file cannot be read, has another header, or a row names no image.
    """
    with _rows(path) as (form, rows):
        ids = dict.fromkeys(_image_id(row, where=where) for where, row in rows)
    if not ids:
        raise DataError(f"{path}:2: There is no row. A sample names the images to predict.")
    return SampleSubmission(form=form, image_ids=tuple(ids))


def read_submission(path: Path) -> dict[tuple[str, int], str]:
    """Read a submission of either form.

    Returns:
        `rle` of each (image_id, class_id), in the order of the file.

    Raises:
        DataError: if the file cannot be read, has another header, a row names no image or no
            class, or two rows name the same pair.
    """
    rle_by_pair: dict[tuple[str, int], str] = {}
    with _rows(path) as (_, rows):
        for where, row in rows:
            pair = _image_id(row, where=where), _class_id(row, where=where)
            if pair in rle_by_pair:
                raise DataError(
                    f"{where}: Image {pair[0]} has a second row for class {pair[1]}. "
                    "Keep one of them."
                )
            rle_by_pair[pair] = row["EncodedPixels"]
    return rle_by_pair


def _is_form(columns: Sequence[str]) -> bool:
    return tuple(columns) == JOINED or sorted(columns) == sorted(SEPARATE)


@contextmanager
def _rows(path: Path) -> Iterator[tuple[tuple[str, ...], Iterator[tuple[str, Row]]]]:
    """Open a submission: its form, and its rows with the place of each ("file:row")."""
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            form = tuple(next(reader, ()))
            if not _is_form(form):
                raise DataError(f"{path}:1: The header is {','.join(form)!r}. {_FORMS}")
            yield form, _named_rows(reader, form=form, path=path)
    except OSError as error:
        raise DataError(f"{path}: The file cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise DataError(f"{path}: The file is not CSV: {error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: The file is not UTF-8 text. Save it as CSV, UTF-8.") from None


def _named_rows(
    lines: Iterator[list[str]], *, form: tuple[str, ...], path: Path
) -> Iterator[tuple[str, Row]]:
    for number, fields in enumerate(lines, start=2):
        where = f"{path}:{number}"
        if len(fields) != len(form):
            raise DataError(
                f"{where}: The row has {len(fields)} fields, the header {len(form)}. "
                "Mend or remove the row."
            )
        yield where, dict(zip(form, fields, strict=True))


def _image_id(row: Row, *, where: str) -> str:
    image_id = row["ImageId"] if "ImageId" in row else _split(row, where=where)[0]
    if not image_id:
        raise DataError(f"{where}: The row names no image. Put its file name there.")
    return image_id


def _class_id(row: Row, *, where: str) -> int:
    class_id = row["ClassId"] if "ClassId" in row else _split(row, where=where)[1]
    if not _CLASS.fullmatch(class_id):
        raise DataError(f"{where}: ClassId is {class_id!r}. Classes are whole numbers from 1.")
    return int(class_id)


def _split(row: Row, *, where: str) -> tuple[str, str]:
    """Take "0000f269f.jpg_1" apart."""
    joined = row["ImageId_ClassId"]
    image_id, _, class_id = joined.rpartition("_")
    if not _CLASS.fullmatch(class_id):
        raise DataError(
            f"{where}: ImageId_ClassId is {joined!r} and does not end in a class. "
            "It is written like 0000f269f.jpg_1, with classes from 1."
        )
    return image_id, class_id
