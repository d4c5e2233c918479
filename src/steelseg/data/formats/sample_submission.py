"""`sample_submission.csv`: the form of the submission and the images to predict."""

from dataclasses import dataclass
from pathlib import Path

from steelseg.data.fault import Fault
from steelseg.data.formats.mask_csv import name_cells, read_table
from steelseg.errors import DataError


@dataclass(frozen=True)
class SampleSubmission:
    """Content of `sample_submission.csv`."""

    form: tuple[str, ...]
    """Column names, in the order of the file."""

    lines: dict[str, int]
    """Line of the first row of each image to predict, by image_id, in the order of the file."""


def inspect_sample(path: Path) -> tuple[SampleSubmission, list[Fault]]:
    """Read the columns and the images of a sample submission.

    Its masks are placeholders, and so are classes in a separate column: the row
    "0000f269f.jpg,1 409600,0" stands for all classes of its image.

    Returns:
        The valid part, and a Fault for every invalid row.
    """
    try:
        table = read_table(path)
    except DataError as error:
        return SampleSubmission((), {}), [Fault(str(path), 0, str(error))]
    lines: dict[str, int] = {}
    faults: list[Fault] = []
    for line, cells in table.rows:
        try:
            lines.setdefault(name_cells(table.form, cells).image_id, line)
        except DataError as error:
            faults.append(Fault(str(path), line, str(error)))
    if not table.rows:
        faults.append(
            Fault(str(path), 0, "the file has no rows. A sample lists the images to predict.")
        )
    return SampleSubmission(table.form, lines), faults


def read_sample(path: Path) -> SampleSubmission:
    """Read a sample submission.

    Raises:
        DataError: if the file cannot be read, has other columns, has no rows, or a row does not
            name an image; with a line `file:row: reason` per fault.
    """
    sample, faults = inspect_sample(path)
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return sample
