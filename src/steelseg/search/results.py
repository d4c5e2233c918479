"""What a search found, as plain records: for the table, the report, and whoever asks.

A trial ends in one of three ways. Finished: trained to its last epoch. Pruned, for a reason: its
score, its speed, settings that contradict each other, a loss that is not a number. Failed: its
files are damaged, and it was queued again.
"""

from dataclasses import dataclass
from typing import Literal

from steelseg.search.space import Drawn, Setting

State = Literal["finished", "given up", "failed", "under way"]


@dataclass(frozen=True)
class Trial:
    """One trial."""

    number: int
    state: State
    drawn: Drawn
    """Its settings of the space."""
    epochs: tuple[tuple[int, float], ...]
    """Epoch and validation score, of the first fold."""
    score: float | None
    """Of the best epoch, the mean over folds; of a trial that is not finished, so far."""
    images_per_second: float | None
    """Strips that its network predicts; None if it could not be built."""
    seconds: float
    """Time of its epochs."""
    reason: str
    """Why it was given up or failed, or whose score it has; "" of others."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return trial_name(self.number)

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best score of the first fold."""
        return max(self.epochs, key=lambda row: row[1])[0] if self.epochs else None


@dataclass(frozen=True)
class Search:
    """A search so far."""

    space: tuple[Setting, ...]
    """What is searched."""
    trials: tuple[Trial, ...]
    wanted: int
    """Trials in all."""
    folds: tuple[int, ...]
    score_name: str
    """What the score is, such as "best threshold Dice"."""
    min_images_per_second: float | None

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of what is searched."""
        return tuple(setting.name for setting in self.space)

    @property
    def finished(self) -> list[Trial]:
        """Trials with a score, the best first; of equal ones the earlier."""
        done = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(done, key=lambda trial: -(trial.score or 0.0))

    @property
    def ranked(self) -> list[Trial]:
        """Finished trials, the best first, then all others in their order."""
        return [*self.finished, *(trial for trial in self.trials if trial.state != "finished")]

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score."""
        return next(iter(self.finished), None)

    @property
    def ended_trials(self) -> list[Trial]:
        """Trials that count: finished or given up."""
        return [trial for trial in self.trials if trial.state in ("finished", "given up")]

    @property
    def ended(self) -> int:
        """How many count."""
        return len(self.ended_trials)


def trial_name(number: int) -> str:
    """Name of the folder of a trial."""
    return f"trial_{number:04d}"


def write_value(value: str | int | float) -> str:
    """A drawn value as tables show it: a number that is not whole to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(search: Search, *, most: int = 10) -> str:
    """The best trials, a line each, and how the others ended.

    Args:
        search: The search.
        most: Trials to show.
    """
    header = ("trial", search.score_name, "epoch", "images/s", *search.settings)
    rows = [header, *(_row(search, trial) for trial in search.finished[:most])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([*lines, summary(search)])


def _row(search: Search, trial: Trial) -> tuple[str, ...]:
    """The cells of a trial."""
    rate = trial.images_per_second
    return (
        str(trial.number),
        f"{trial.score:.4f}",
        str(trial.best_epoch or "-"),
        "-" if rate is None else f"{rate:.1f}",
        *(write_value(trial.drawn[name]) for name in search.settings),
    )


def summary(search: Search) -> str:
    """How many trials ended how."""
    counts = {
        state: sum(trial.state == state for trial in search.trials)
        for state in ("finished", "given up", "failed", "under way")
    }
    parts = [f"{number} {state}" for state, number in counts.items() if number]
    wanted = max(search.wanted, search.ended)
    return f"{search.ended} of {wanted} trials: {', '.join(parts) or 'none yet'}"
