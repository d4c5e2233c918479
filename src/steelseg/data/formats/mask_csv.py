"""The two CSV forms in which Kaggle writes masks, for labels and submissions alike.

    ImageId_ClassId,EncodedPixels     "0002cc93b.jpg_1,29102 12 ..."
    ImageId,ClassId,EncodedPixels     "0002cc93b.jpg,1,29102 12 ...", columns in any order

A form is the tuple of column names in the order of the file. This module splits rows into cells
and rejects malformed ones; callers interpret the cells.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steelseg.errors import DataError

JOINED = ("ImageId_ClassId", "EncodedPixels")
SEPARATE = ("ImageId", "ClassId", "EncodedPixels")

# The RLE of every second pixel of a 256x1600 mask has 2.6 million characters.
_LONGEST_FIELD = 100_000_000

_NOT_A_NAME = re.compile(r"[/\\\x00-\x1f]")
_JOINED_CELL = re.compile(r"(.*)_([0-9]+)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A mask CSV with uninterpreted cells."""

    form: tuple[str, ...]
    """Column names, in the order of the file."""

    rows: tuple[tuple[int, list[str]], ...]
    """First line, from 1, and cells of each row that is not blank."""


@dataclass(frozen=True)
class Cells:
    """The cells of one row."""

    image_id: str
    """File name of the image; never empty, never a path."""

    class_text: str
    """The class as text."""

    rle: str
    """The mask; "" is empty."""


def is_form(columns: Sequence[str]) -> bool:
    """Whether the columns are one of the two forms, in any order."""
    return sorted(columns) in (sorted(JOINED), sorted(SEPARATE))


def read_table(path: Path) -> Table:
    """Read a mask CSV.

    Raises:
        DataError: if the file cannot be read or has other columns; does not name the file.
    """
    limit = csv.field_size_limit(_LONGEST_FIELD)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                rows.append((line, cells))
                # A quoted cell may span several lines.
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8 text.") from None
    except csv.Error as error:
        raise DataError(f"the row that starts on line {line} is not CSV: {error}.") from None
    finally:
        csv.field_size_limit(limit)
    form = tuple(rows[0][1]) if rows else ()
    if not is_form(form):
        raise DataError(
            f"the columns are {','.join(form)[:80]!r}. Expected {','.join(SEPARATE)} or "
            f"{','.join(JOINED)}."
        )
    return Table(form, tuple((line, cells) for line, cells in rows[1:] if cells))


def name_cells(form: Sequence[str], cells: Sequence[str]) -> Cells:
    """Assign the cells of a row to the columns.

    Raises:
        DataError: if the number of cells is wrong, or the image id is not a file name.
    """
    if len(cells) != len(form):
        raise DataError(f"the row has {len(cells)} cells, the header {len(form)}.")
    named = dict(zip(form, cells, strict=True))
    if "ImageId" in named:
        image_id, class_text = named["ImageId"], named["ClassId"]
    else:
        joined = named["ImageId_ClassId"]
        # Digits are required, or "0002_cc93b.jpg" would be read as image "0002".
        parts = _JOINED_CELL.fullmatch(joined)
        if parts is None:
            raise DataError(f"{joined[:60]!r} is not an ImageId_ClassId such as 0002cc93b.jpg_1.")
        image_id, class_text = parts[1], parts[2]
    _reject_path(image_id)
    return Cells(image_id, class_text, named["EncodedPixels"])


def _reject_path(image_id: str) -> None:
    """Raise DataError unless `image_id` is a bare file name."""
    if not image_id or image_id in (".", "..") or _NOT_A_NAME.search(image_id):
        raise DataError(
            f"image id {image_id[:60]!r} is not a file name: it must not be empty or a path."
        )
