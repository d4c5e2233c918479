"""What `steelseg check` lists: one thing that is wrong with a data set."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with a data set; prints as `file:row: reason`."""

    file: str
    """The file at fault, as the user would type it."""

    row: int
    """Line of the file, from 1; 0 when the file as a whole is at fault."""

    reason: str
    """What is wrong and what was expected, as a sentence."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.row}" if self.row else self.file
        return f"{place}: {self.reason}"
