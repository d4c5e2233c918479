"""A fault of a data set, as `steelseg check` lists it."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Fault:
    """One fault of a data set; prints as `file:row: reason`."""

    file: str
    """The file, as the user would type it."""

    row: int
    """Line of the file, from 1; 0 if the fault concerns the whole file."""

    reason: str
    """What is wrong and what was expected, as a sentence."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.row}" if self.row else self.file
        return f"{place}: {self.reason}"
