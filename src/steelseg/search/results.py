"""Results of a search as plain records, for the table and the report.

A trial is *finished* when it has trained all its epochs. It is *pruned* for its score, its speed,
contradictory settings, lack of memory, or a loss that is not a number. It is *failed* when its
files are damaged; its settings are then queued again.
"""

from dataclasses import dataclass
from typing import Literal

from steelseg.search.space import Params, Setting

State = Literal["finished", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """One trial."""

    number: int
    state: State
    params: Params
    epochs: tuple[tuple[int, float], ...]
    """Epoch and validation score of the first fold, ascending."""
    score: float | None
    """Score of the best epoch, averaged over folds; if the trial is not finished, its best so far.
    """
    images_per_second: float | None
    """Speed of the network; None if it was not measured."""
    seconds: float
    """Total time of its epochs."""
    reason: str
    """Why it was pruned or failed, or which trial it shares its score with; else ""."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return trial_name(self.number)

    @property
    def best_epoch(self) -> int | None:
        """Epoch with the best score of the first fold."""
        return max(self.epochs, key=lambda row: row[1])[0] if self.epochs else None


@dataclass(frozen=True)
class Search:
    """A search so far."""

    space: tuple[Setting, ...]
    trials: tuple[Trial, ...]
    wanted: int
    """Trials to run in total, pruned ones included."""
    folds: tuple[int, ...]
    score_name: str
    """Name of the score, such as "best threshold Dice"."""
    min_images_per_second: float | None

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the searched settings."""
        return tuple(setting.name for setting in self.space)

    @property
    def finished(self) -> list[Trial]:
        """Finished trials, the best first; equal scores keep their order."""
        done = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(done, key=lambda trial: -(trial.score or 0.0))

    @property
    def ranked(self) -> list[Trial]:
        """Finished trials, the best first, then all others in their order."""
        return [*self.finished, *(trial for trial in self.trials if trial.state != "finished")]

    @property
    def best(self) -> Trial | None:
        """The finished trial with the highest score."""
        return next(iter(self.finished), None)

    @property
    def ended_trials(self) -> list[Trial]:
        """Trials that count towards `wanted`: finished or pruned."""
        return [trial for trial in self.trials if trial.state in ("finished", "pruned")]

    @property
    def ended(self) -> int:
        """Number of finished and pruned trials."""
        return len(self.ended_trials)


def trial_name(number: int) -> str:
    """Return the name of the folder of a trial."""
    return f"trial_{number:04d}"


def write_value(value: str | int | float) -> str:
    """Format a value for a table; floats have four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(search: Search, *, most: int = 10) -> str:
    """Format the best trials as a text table with a summary line.

    Args:
        search: The search.
        most: Maximum number of trials in the table.
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
    rate = trial.images_per_second
    return (
        str(trial.number),
        f"{trial.score:.4f}",
        str(trial.best_epoch or "-"),
        "-" if rate is None else f"{rate:.1f}",
        *(write_value(trial.params[name]) for name in search.settings),
    )


def summary(search: Search) -> str:
    """Return one line with the number of trials in each state."""
    counts = {
        state: sum(trial.state == state for trial in search.trials)
        for state in ("finished", "pruned", "failed", "running")
    }
    parts = [f"{number} {state}" for state, number in counts.items() if number]
    wanted = max(search.wanted, search.ended)
    return f"{search.ended} of {wanted} trials: {', '.join(parts) or 'none yet'}"
