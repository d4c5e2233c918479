"""The Dice that a class could have with a threshold and a smallest mask of its own.

At one fixed threshold, the epoch that is most silent often has the best mean Dice, because most
strips are clean; what it knows shows only when each class gets the threshold and the area that
suit it. So does this figure: thresholds are every fifth of the 256 stored levels, areas steps of
the square root of 2. It is chosen and scored on the same strips, so it ranks epochs and promises
nothing: `tune` and `evaluate` say what to expect.

`ThresholdDice` chooses the same settings for the strips of each fold on the other folds, class by
class, so that its Dice is what to expect of new strips. It is less than what `steelseg tune` finds,
which also drops components; it serves to compare predictions.

Axes: n strips, c classes, l levels, p folds; a trailing 3 is intersection, prediction and truth.
No files, no torch.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = np.arange(5, 256, 5)
"""The thresholds, times 255."""

_AREAS = 22

_Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class SweptDice:
    """Strips of one epoch, counted at every level."""

    def __init__(self) -> None:
        """Start without strips."""
        self._areas: list[NDArray[np.int64]] = []
        self._hits: list[NDArray[np.int64]] = []
        self._truths: list[NDArray[np.int64]] = []
        self._largest = 1

    def add(self, probs_chw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]) -> None:
        """Count one strip; probabilities are times 255, both of shape (C, H, W)."""
        planes = list(zip(probs_chw, truth_chw, strict=True))
        self._areas.append(np.stack([reached(probs_hw, None) for probs_hw, _ in planes]))
        self._hits.append(np.stack([reached(probs_hw, truth_hw) for probs_hw, truth_hw in planes]))
        self._truths.append(truth_chw.sum(axis=(1, 2)))
        self._largest = max(self._largest, probs_chw[0].size)

    def result(self) -> float:
        """Mean over the classes of the best mean Dice over the strips."""
        counted, smallest = self.by_class()
        return float(np.mean([_best(*counts, smallest) for counts in counted]))

    def by_class(self) -> tuple[list[_Counts], list[float]]:
        """areas_nl, hits_nl and truths_n of each class, and the areas to try as the smallest."""
        areas_ncl, hits_ncl, truths_nc = map(np.stack, (self._areas, self._hits, self._truths))
        classes = zip(areas_ncl.swapaxes(0, 1), hits_ncl.swapaxes(0, 1), truths_nc.T, strict=True)
        return list(classes), smallest_masks(self._largest)


def smallest_masks(largest: int) -> list[float]:
    """Areas that are tried as the smallest, for strips of at most so many pixels."""
    return [1.0, *(largest / 2**14 * np.sqrt(2) ** np.arange(_AREAS))]


def reached(probs_hw: NDArray[np.uint8], truth_hw: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Pixels that reach each of `LEVELS`, of all or of the truth."""
    inside = None if truth_hw is None else np.ascontiguousarray(truth_hw).view(np.uint8)
    counts = cv2.calcHist([np.ascontiguousarray(probs_hw)], [0], inside, [256], [0, 256])
    counts_l: NDArray[np.int64] = counts.ravel()[::-1].astype(np.int64).cumsum()[::-1][LEVELS]
    return counts_l


def _best(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    smallest: list[float],
) -> float:
    """The best mean Dice of one class over levels and smallest masks."""
    by_size = dice_by_size(areas_nl, hits_nl, truths_n, smallest)
    return max(float(dice_nl.mean(axis=0).max()) for dice_nl in by_size)


def dice_by_size(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    smallest: Sequence[float],
) -> Iterator[NDArray[np.float64]]:
    """Yield the Dice of one class on each strip at each level, for each of the smallest masks."""
    is_empty_n = truths_n == 0
    dice_nl = 2 * hits_nl / np.maximum(areas_nl + truths_n[:, None], 1)
    dice_nl[is_empty_n] = 0
    for size in smallest:
        yield np.where(areas_nl >= size, dice_nl, is_empty_n[:, None])


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

    def cross_fitted(self, fold_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count every strip with settings that were chosen on the other folds.

        Args:
            fold_n: Fold of each strip, in the order of adding; two folds at least.

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
                    fold_n,
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
    fold_n: NDArray[np.int64],
    smallest: Sequence[float],
) -> NDArray[np.int64]:
    """counts_n3 of one class."""
    folds = np.unique(fold_n)
    by_fold = np.empty((len(smallest), len(folds), len(LEVELS)))
    for place, dice_nl in enumerate(dice_by_size(areas_nl, hits_nl, truths_n, smallest)):
        by_fold[place] = [dice_nl[fold_n == fold].sum(axis=0) for fold in folds]
    counts_n3 = np.zeros((len(fold_n), 3), np.int64)
    for number, fold in enumerate(folds):
        of_others = by_fold.sum(axis=1) - by_fold[:, number]
        # Sums of other order differ in the last bits, and would break ties by chance.
        place, level = np.unravel_index(of_others.round(9).argmax(), of_others.shape)
        is_judged = fold_n == fold
        is_kept = areas_nl[is_judged, level] >= smallest[place]
        counts_n3[is_judged, 0] = hits_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 1] = areas_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 2] = truths_n[is_judged]
    return counts_n3
