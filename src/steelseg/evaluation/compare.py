"""The comparison stage: test whether one run is better than another.

Reads  RUN_A/scores.csv, RUN_B/scores.csv
Writes nothing

Both runs are scored on the strips that both predicted, with the same bootstrap draws. Pairing
removes the variation between strips that is common to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelseg.errors import DataError
from steelseg.run.run_folder import RunFolder
from steelseg.run.scores_csv import ScoreTable, read_scores
from steelseg.scoring.intervals import draw_figures, interval
from steelseg.scoring.metrics import flatten, score

_FIGURES = ("dice", "dice_positive", "image_recall", "false_alarm_rate")


@dataclass(frozen=True)
class Difference:
    """A score of two runs on the same strips."""

    name: str
    """The score, as metrics.json names it; for a class with its class_id at the end."""

    a: float
    """Value of the first run; NaN if undefined."""

    b: float
    """Value of the second run."""

    bounds: tuple[float, float] | None
    """95 % interval of b - a; None if undefined."""

    @property
    def is_real(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.bounds is not None and not self.bounds[0] <= 0 <= self.bounds[1]


@dataclass(frozen=True)
class Comparison:
    """The scores of two runs."""

    strips: int
    """Strips that both runs predicted."""

    left_out: int
    """Strips that only one of them predicted."""

    differences: tuple[Difference, ...]
    """Overall first, then class by class."""

    @property
    def sentence(self) -> str:
        """Return the conclusion from the mean Dice."""
        dice = self.differences[0]
        assert dice.bounds is not None
        low, high = dice.bounds
        if not dice.is_real:
            return (
                "No significant difference: B - A in Dice is "
                f"{dice.b - dice.a:+.4f} [{low:+.4f}, {high:+.4f}]."
            )
        better, sign = ("B", 1) if dice.b > dice.a else ("A", -1)
        low, high = sorted((sign * low, sign * high))
        return f"{better} is better by {abs(dice.b - dice.a):.4f} [{low:.4f}, {high:.4f}] in Dice."


def compare_runs(run_a: RunFolder, run_b: RunFolder) -> Comparison:
    """Compare two evaluated runs, paired by strip.

    Raises:
        CheckpointError: if a run has no scores.csv.
        DataError: if they have no strip in common, or different ground truth or classes.
    """
    a, b = read_scores(run_a.scores_csv), read_scores(run_b.scores_csv)
    common = [image_id for image_id in a.fold_of if image_id in b.fold_of]
    if not common:
        raise DataError(f"{run_a.path} and {run_b.path} have no strip in common.")
    counts_a, counts_b = (_pick(table, common) for table in (a, b))
    if counts_a.shape != counts_b.shape or (counts_a[..., 2] != counts_b[..., 2]).any():
        raise DataError(
            f"{run_a.path} and {run_b.path} were scored with different ground truth. Evaluate both "
            "with the same train.csv: steelseg evaluate RUN. A classifier can only be compared "
            "with another classifier."
        )
    draws_a, draws_b = draw_figures(counts_a), draw_figures(counts_b)
    figures_a, figures_b = (flatten(score(counts), prefix="") for counts in (counts_a, counts_b))
    tails = ["", *(f"_{class_id}" for class_id in range(1, counts_a.shape[1] + 1))]
    return Comparison(
        strips=len(common),
        left_out=len(a.fold_of.keys() ^ b.fold_of.keys()),
        differences=tuple(
            Difference(n, figures_a[n], figures_b[n], interval(draws_b[n] - draws_a[n]))
            for n in (name + tail for tail in tails for name in _FIGURES)
        ),
    )


def _pick(table: ScoreTable, image_ids: Sequence[str]) -> np.ndarray:
    """Return the counts of some strips, in their order."""
    index = {image_id: number for number, image_id in enumerate(table.fold_of)}
    return table.counts_nc3[[index[image_id] for image_id in image_ids]]


def describe(comparison: Comparison, class_names: Sequence[str]) -> str:
    """Return a comparison as a text table with the conclusion below."""
    head = f"{'':<14}{'score':<18}{'A':>8}{'B':>8}{'B - A':>10}  95 % interval"
    lines = [head]
    for index, difference in enumerate(comparison.differences):
        group, figure = divmod(index, len(_FIGURES))
        name = ("all", *class_names)[group][:12] if figure == 0 else ""
        lines.append(f"{name:<14}{_FIGURES[figure]:<18}" + _cells(difference))
    if comparison.left_out:
        lines.append(f"{comparison.left_out} strips that only one run predicted are left out.")
    lines.append(f"{comparison.strips} strips, paired; * marks significant differences.")
    return "\n".join([*lines, comparison.sentence])


def _cells(difference: Difference) -> str:
    """Return values, difference and interval of a line."""
    a, b, bounds = difference.a, difference.b, difference.bounds
    if bounds is None or np.isnan(b - a):
        return f"{'-':>8}{'-':>8}{'-':>10}"
    star = " *" if difference.is_real else ""
    return f"{a:8.4f}{b:8.4f}{b - a:+10.4f}  [{bounds[0]:+.4f}, {bounds[1]:+.4f}]{star}"
