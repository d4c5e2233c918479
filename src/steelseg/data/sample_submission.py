"""`sample_submission.csv`: the form of the submission and the images to predict."""

from dataclasses import dataclass
from pathlib import Path

from steelseg.data.mask_csv import name_cells, read_table
from steelseg.errors import DataError, Fault


@dataclass(frozen=True)
class SampleSubmission:
    """What `sample_submission.csv` asks for."""

    form: tuple[str, ...]
    """Column names, in the order of the file."""

    lines: dict[str, int]
    """Line of the first row of each image to predict, by image_id, in the order of the file."""


def read_sample(path: Path) -> SampleSubmission:
    """Read the form and the images of a sample submission.

    Masks are placeholders there, and so are the classes in a column of their own: a row
    "0000f269f.jpg,1 409600,0" asks for every class of its image.

    Raises:
        DataError: if the file cannot be read, has another header, a row names no image, or
            there is no row; the message names file and row.
    """
    lines: dict[str, int] = {}
    line = 0
    try:
        table = read_table(path)
        for line, cells in table.rows:
            lines.setdefault(name_cells(table.form, cells).image_id, line)
        line = 0
        if not lines:
            raise DataError("there is no row. A sample names the images to predict.")
    except DataError as error:
        raise DataError(str(Fault(str(path), line, str(error)))) from None
    return SampleSubmission(table.form, lines)
