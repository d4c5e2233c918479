"""The Dice of predictions whose thresholds were chosen on other strips, at little cost.

Thresholds and smallest masks are those of `swept_dice`; for the strips of each part they are chosen
on the other parts, class by class, so that the Dice is what to expect of new strips. It is less
than what `steelseg tune` finds, which also drops components; it serves to tell predictions apart.

Axes: n strips, c classes, l levels, p parts; a trailing 3 is intersection, prediction and truth.
No files, no torch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelseg.evaluation.swept_dice import LEVELS, SweptDice, dice_by_size

# Of thresholds that are equally good, the one nearest to the middle is the safest.
_FROM_THE_MIDDLE = np.argsort(np.abs(LEVELS - 127.5), kind="stable")


class ThresholdDice:
    """Strips of one predictor, counted at every level."""

    def __init__(self) -> None:
        """Start without strips."""
        self._counted = SweptDice()

    def add(self, probs_chw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]) -> None:
        """Count one strip; probabilities are times 255, both of shape (C, H, W)."""
        self._counted.add(probs_chw, truth_chw)

    def cross_fitted(self, part_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count every strip with settings that were chosen on the other parts.

        Args:
            part_n: Part of each strip, in the order of adding; two parts at least.

        Returns:
            counts_nc3, as `metrics.score` takes them.
        """
        classes, smallest = self._counted.by_class()
        return np.stack(
            [
                _count_class(
                    areas_nl[:, _FROM_THE_MIDDLE],
                    hits_nl[:, _FROM_THE_MIDDLE],
                    truths_n,
                    part_n,
                    smallest,
                )
                for areas_nl, hits_nl, truths_n in classes
            ],
            axis=1,
        )


def _count_class(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    part_n: NDArray[np.int64],
    smallest: Sequence[float],
) -> NDArray[np.int64]:
    """counts_n3 of one class."""
    parts = np.unique(part_n)
    by_part = np.empty((len(smallest), len(parts), len(LEVELS)))
    for place, dice_nl in enumerate(dice_by_size(areas_nl, hits_nl, truths_n, smallest)):
        by_part[place] = [dice_nl[part_n == part].sum(axis=0) for part in parts]
    counts_n3 = np.zeros((len(part_n), 3), np.int64)
    for number, part in enumerate(parts):
        of_others = by_part.sum(axis=1) - by_part[:, number]
        # Sums of other order differ in the last bits, and would break ties by chance.
        place, level = np.unravel_index(of_others.round(9).argmax(), of_others.shape)
        is_judged = part_n == part
        is_kept = areas_nl[is_judged, level] >= smallest[place]
        counts_n3[is_judged, 0] = hits_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 1] = areas_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 2] = truths_n[is_judged]
    return counts_n3
