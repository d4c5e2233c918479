"""The outcome of one row, and the table of all rows."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How often a promise was kept."""

    reached: int
    """Number of cases in which the promise held."""

    of: int
    """Cases that were tried."""

    seconds: float
    """How long they took."""

    note: str = ""
    """Note for the reader of the table: figures, or the first case that failed."""

    @property
    def is_kept(self) -> bool:
        """Whether the promise was tried and held every time."""
        return 0 < self.of == self.reached

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"{self.reached:,} of {self.of:,} in {self.seconds:.0f} s{note}"


def to_markdown(outcomes: Mapping[tuple[str, str], Outcome]) -> str:
    """Write outcomes, by module and NAME, as the table of docs/reliability.md."""
    lines = ["| promise | reached | seconds | command | note |", "|---|---|---|---|---|"]
    for (module, name), found in outcomes.items():
        count = f"{found.reached:,} / {found.of:,}"
        command = f"`python -m torture {module}`"
        lines.append(f"| {name} | {count} | {found.seconds:.0f} | {command} | {found.note} |")
    return "\n".join(lines)
