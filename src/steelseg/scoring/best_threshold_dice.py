"""Mean Dice with the best threshold and minimum area of each class, and the same cross-fitted.

At a fixed threshold the epoch that predicts least often has the best mean Dice, because most strips
are clean. `BestThresholdDice.result` compares epochs at the threshold and minimum area that suit
each class best. Thresholds are every fifth of the 256 stored levels, areas are steps of the square
root of 2. It is chosen and scored on the same strips, so it ranks epochs but is optimistic: run
`tune` and `evaluate` for unbiased scores.

`BestThresholdDice.cross_fitted` chooses the same settings for the strips of each inner fold on the
other inner folds, which estimates the Dice on new strips. `steelseg tune` also removes components
and reaches more, so this only compares predictions.

Axes: n strips, c classes, l levels; a trailing 3 is intersection, prediction and truth.
No files, no torch.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = np.arange(5, 256, 5)
"""The thresholds, times 255."""

_AREAS = 22

# Of equally good thresholds the one nearest to the middle is the most robust.
_FROM_THE_MIDDLE = np.argsort(np.abs(LEVELS - 127.5), kind="stable")

_Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class BestThresholdDice:
    """Dice at the best settings of each class; counts the pixels of each strip at every level."""

    def __init__(self) -> None:
        """Start without strips."""
        self._areas: list[NDArray[np.int64]] = []
        self._hits: list[NDArray[np.int64]] = []
        self._truths: list[NDArray[np.int64]] = []
        self._largest = 1

    def add(self, probs_chw: NDArray[np.uint8], truth_chw: NDArray[np.bool_]) -> None:
        """Count one strip; probabilities are times 255, both of shape (C, H, W)."""
        planes = list(zip(probs_chw, truth_chw, strict=True))
        self._areas.append(np.stack([_pixels_at(probs_hw, None) for probs_hw, _ in planes]))
        self._hits.append(np.stack([_pixels_at(*plane) for plane in planes]))
        self._truths.append(truth_chw.sum(axis=(1, 2)))
        self._largest = max(self._largest, probs_chw[0].size)

    def _by_class(self) -> tuple[list[_Counts], list[float]]:
        """Return areas_nl, hits_nl and truths_n of each class, and the minimum areas to try."""
        areas_ncl, hits_ncl, truths_nc = map(np.stack, (self._areas, self._hits, self._truths))
        classes = zip(areas_ncl.swapaxes(0, 1), hits_ncl.swapaxes(0, 1), truths_nc.T, strict=True)
        return list(classes), minimum_areas(self._largest)

    def result(self) -> float:
        """Return the mean over the classes of the best mean Dice over the strips."""
        classes, areas = self._by_class()
        return float(np.mean([_best(*counts, areas) for counts in classes]))

    def cross_fitted(self, fold_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count every strip with settings that were chosen on the other inner folds.

        Args:
            fold_n: Inner fold of each strip, in the order of adding; at least two folds.

        Returns:
            counts_nc3, as `metrics.score` takes them.
        """
        classes, areas = self._by_class()
        return np.stack([_count_class(*counts, fold_n, areas) for counts in classes], axis=1)


def minimum_areas(largest: int) -> list[float]:
    """Return the minimum areas to try for strips of at most this number of pixels."""
    return [1.0, *(largest / 2**14 * np.sqrt(2) ** np.arange(_AREAS))]


def _pixels_at(
    probs_hw: NDArray[np.uint8], truth_hw: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Count pixels that reach each of `LEVELS`, only inside the ground truth if given."""
    inside = None if truth_hw is None else np.ascontiguousarray(truth_hw).view(np.uint8)
    counts = cv2.calcHist([np.ascontiguousarray(probs_hw)], [0], inside, [256], [0, 256])
    counts_l: NDArray[np.int64] = counts.ravel()[::-1].astype(np.int64).cumsum()[::-1][LEVELS]
    return counts_l


def _dice_by_area(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    minimum: Sequence[float],
) -> Iterator[NDArray[np.float64]]:
    """Yield the Dice of one class on each strip at each level, for each minimum area."""
    is_empty_n = truths_n == 0
    dice_nl = 2 * hits_nl / np.maximum(areas_nl + truths_n[:, None], 1)
    dice_nl[is_empty_n] = 0
    for area in minimum:
        yield np.where(areas_nl >= area, dice_nl, is_empty_n[:, None])


def _best(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    minimum: Sequence[float],
) -> float:
    """Return the best mean Dice of one class over levels and minimum areas."""
    by_area = _dice_by_area(areas_nl, hits_nl, truths_n, minimum)
    return max(float(dice_nl.mean(axis=0).max()) for dice_nl in by_area)


def _count_class(
    areas_nl: NDArray[np.int64],
    hits_nl: NDArray[np.int64],
    truths_n: NDArray[np.int64],
    fold_n: NDArray[np.int64],
    minimum: Sequence[float],
) -> NDArray[np.int64]:
    """Return counts_n3 of one class."""
    areas_nl, hits_nl = areas_nl[:, _FROM_THE_MIDDLE], hits_nl[:, _FROM_THE_MIDDLE]
    folds = np.unique(fold_n)
    by_fold = np.empty((len(minimum), len(folds), len(LEVELS)))
    for place, dice_nl in enumerate(_dice_by_area(areas_nl, hits_nl, truths_n, minimum)):
        by_fold[place] = [dice_nl[fold_n == fold].sum(axis=0) for fold in folds]
    counts_n3 = np.zeros((len(fold_n), 3), np.int64)
    for number, fold in enumerate(folds):
        of_others = by_fold.sum(axis=1) - by_fold[:, number]
        # Sums in another order differ in the last bits, which must not decide ties.
        place, level = np.unravel_index(of_others.round(9).argmax(), of_others.shape)
        is_judged = fold_n == fold
        is_kept = areas_nl[is_judged, level] >= minimum[place]
        counts_n3[is_judged, 0] = hits_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 1] = areas_nl[is_judged, level] * is_kept
        counts_n3[is_judged, 2] = truths_n[is_judged]
    return counts_n3
