"""Count what every combination of post-processing settings finds, for one class.

`Tables` adds up strips: components are labelled once per threshold, and one sorted pass over them
gives the result of every size. Sums are kept for each inner fold, so cross-fitting does not need a
second pass over the strips.

A combination is (threshold, top_threshold, min_size, min_area) as `postprocess.binarize` takes
them, and the minimum presence of a hard gate; the counts are exactly those of the masks it makes.

Axes: k pairs of thresholds, s sizes, a areas, g gates. Probabilities are uint8, as out-of-fold
predictions are stored. No files, no torch. `grid_search` chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.postprocess import level_of

Index: TypeAlias = tuple[int, int, int, int]
"""Index of a combination in the tables: pair of thresholds, size, area, gate."""


@dataclass(frozen=True)
class Grid:
    """The values to try for one class."""

    pairs: tuple[tuple[float, float], ...]
    """threshold and top_threshold, threshold ascending, top_threshold not below it."""

    min_sizes: tuple[int, ...]
    """Ascending."""

    min_areas: tuple[int, ...]
    """Ascending."""

    gates: tuple[float, ...] = (0.0,)
    """Minimum presence, ascending; 0 lets every strip pass."""


@dataclass(frozen=True)
class Choice:
    """One combination of a grid."""

    threshold: float
    top_threshold: float
    min_size: int
    min_area: int
    gate: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of a combination on some strips; a pair is one class of one strip."""

    dice_sum: float
    """Sum of the Dice over positive pairs."""
    found: int
    """Positive pairs with a mask."""
    false_alarms: int
    """Negative pairs with a mask."""
    positives: int
    """Pairs with a defect in the ground truth."""
    negatives: int
    """Pairs without."""

    @property
    def dice(self) -> float:
        """Mean Dice as the competition counts it: an empty mask on an empty truth is 1."""
        pairs = self.positives + self.negatives
        return (self.dice_sum + self.negatives - self.false_alarms) / pairs if pairs else np.nan

    @property
    def dice_positive(self) -> float:
        """Mean Dice over positive pairs; NaN without any."""
        return self.dice_sum / self.positives if self.positives else np.nan


def make_grid(
    *,
    thresholds: Sequence[float],
    top_thresholds: Sequence[float] | None,
    min_sizes: Sequence[int],
    min_areas: Sequence[int],
    gates: Sequence[float] = (0.0,),
) -> Grid:
    """Pair thresholds with those not below them.

    Args:
        thresholds: Tried for `threshold`.
        top_thresholds: Tried for `top_threshold` in addition to `threshold`; None tries only that.
        min_sizes: Tried for `min_size`.
        min_areas: Tried for `min_area`.
        gates: Tried for `gate`.
    """
    pairs = [
        (threshold, top)
        for threshold in sorted(set(thresholds))
        for top in sorted({threshold, *(top_thresholds or ())})
        if top >= threshold
    ]
    return Grid(
        pairs=tuple(pairs),
        min_sizes=tuple(sorted(set(min_sizes))),
        min_areas=tuple(sorted(set(min_areas))),
        gates=tuple(sorted(set(gates))),
    )


class Tables:
    """Counts of every combination of a grid, summed over the strips of each inner fold."""

    def __init__(self, grid: Grid, num_folds: int) -> None:
        """Start at zero.

        Args:
            grid: The combinations.
            num_folds: Number of inner folds.
        """
        self.grid = grid
        # Cell a has the strips that pass the first a areas and fail the next, cell g those that
        # pass the gates up to it and fail the next; `_passed` sums from the end.
        areas, gates = len(grid.min_areas) + 1, len(grid.gates)
        shape = (num_folds, len(grid.pairs), len(grid.min_sizes), areas, gates)
        self._dice = np.zeros(shape)
        self._found = np.zeros(shape, dtype=np.int64)
        self._false_alarms = np.zeros(shape, dtype=np.int64)
        self._positives = np.zeros(num_folds, dtype=np.int64)
        self._negatives = np.zeros(num_folds, dtype=np.int64)
        self._gates = np.array(grid.gates, np.float32)
        self._tops = np.array(sorted({top for _, top in grid.pairs}))
        levels = [level_of(top, np.dtype(np.uint8)) for top in self._tops]
        self._steps = np.searchsorted(levels, np.arange(256), side="right")
        self._by_threshold = [self._pairs_of(t) for t in sorted({t for t, _ in grid.pairs})]

    def _pairs_of(self, threshold: float) -> tuple[float, NDArray[np.intp], NDArray[np.intp]]:
        """Return the level of a threshold, and indices of its pairs and their top thresholds."""
        pairs = np.array([k for k, (t, _) in enumerate(self.grid.pairs) if t == threshold])
        tops = np.searchsorted(self._tops, [self.grid.pairs[k][1] for k in pairs])
        return level_of(threshold, np.dtype(np.uint8)), pairs, tops

    def add(
        self,
        fold: int,
        probs_hw: NDArray[np.uint8],
        truth_hw: NDArray[np.bool_],
        presence: float = 1.0,
    ) -> None:
        """Count one strip.

        Args:
            fold: Inner fold of the strip, 0 to `num_folds - 1`.
            probs_hw: Probabilities times 255, shape (H, W).
            truth_hw: Ground-truth mask, same shape.
            presence: Presence of the class on the strip.
        """
        truth_area = int(np.count_nonzero(truth_hw))
        (self._positives if truth_area else self._negatives)[fold] += 1
        passed = int(np.searchsorted(self._gates, np.float32(presence), side="right"))
        if not passed:
            return
        lowest = self._by_threshold[0][0]
        left, top, width, height = cv2.boundingRect((probs_hw >= lowest).view(np.uint8))
        window = np.s_[top : top + height, left : left + width]
        probs_hw, truth_hw = np.ascontiguousarray(probs_hw[window]), truth_hw[window]
        for level, pairs, tops in self._by_threshold:
            mask_hw = probs_hw >= level
            if not mask_hw.any():
                break
            kept = self._keep(mask_hw, probs_hw, truth_hw)
            self._count((fold, passed - 1), pairs, kept[:2], kept[2 + tops], truth_area)

    def _keep(
        self, mask_hw: NDArray[np.bool_], probs_hw: NDArray[np.uint8], truth_hw: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Count pixels that each min_size keeps.

        Returns:
            Shape (2 + tops, S): of the mask, of its intersection with the truth, and of those
            that reach each top threshold.
        """
        count, labels_hw = cv2.connectedComponents(mask_hw.view(np.uint8), connectivity=8)
        labels = labels_hw[mask_hw] - 1
        columns = len(self._tops) + 1
        by_step = np.bincount(
            labels * columns + self._steps[probs_hw[mask_hw]], minlength=(count - 1) * columns
        ).reshape(count - 1, columns)
        # Pixels that reach each step; column 0 is the whole component.
        reached = by_step[:, ::-1].cumsum(axis=1)[:, ::-1]
        hits = np.bincount(labels[truth_hw[mask_hw]], minlength=count - 1)
        pixels = np.column_stack([reached[:, :1], hits, reached[:, 1:]])
        order = np.argsort(pixels[:, 0])
        fewer = np.searchsorted(pixels[order, 0], self.grid.min_sizes, side="left")
        sums = np.zeros((count, pixels.shape[1]), dtype=np.int64)
        sums[:-1] = pixels[order[::-1]].cumsum(axis=0)[::-1]
        return sums[fewer].T

    def _count(
        self,
        index: tuple[int, int],
        pairs: NDArray[np.intp],
        kept: NDArray[np.int64],
        kept_tops: NDArray[np.int64],
        truth_area: int,
    ) -> None:
        """Add the pairs of one threshold on one strip, at its inner fold and last passed gate."""
        areas, hits = kept
        passes = np.searchsorted(self.grid.min_areas, kept_tops, side="right")
        passes[:, areas == 0] = 0
        cells = index[0], pairs[:, None], np.arange(len(areas)), passes, index[1]
        if truth_area:
            self._dice[cells] += 2 * hits / (areas + truth_area)
            self._found[cells] += 1
        else:
            self._false_alarms[cells] += 1

    def sums(self, folds: Sequence[int]) -> "Sums":
        """Return the sums over the strips of some inner folds."""
        chosen = list(folds)
        return Sums(
            grid=self.grid,
            dice=_passed(self._dice[chosen]),
            found=_passed(self._found[chosen]),
            false_alarms=_passed(self._false_alarms[chosen]),
            positives=int(self._positives[chosen].sum()),
            negatives=int(self._negatives[chosen].sum()),
        )


def _passed(cells: NDArray[Any]) -> NDArray[Any]:
    """Sum over inner folds and, for each area and gate, over the strips that pass them."""
    by_area = cells.sum(axis=0)[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
    total: NDArray[Any] = by_area[..., ::-1].cumsum(axis=3)[..., ::-1]
    return total


@dataclass(frozen=True)
class Sums:
    """Results of every combination on some strips; arrays have shape (K, S, A, G)."""

    grid: Grid
    dice: NDArray[np.float64]
    """Sum of the Dice over positive pairs."""
    found: NDArray[np.int64]
    """Positive pairs with a mask."""
    false_alarms: NDArray[np.int64]
    """Negative pairs with a mask."""
    positives: int
    negatives: int

    @property
    def mean_dice(self) -> NDArray[np.float64]:
        """Mean Dice of each combination, as the competition counts it."""
        pairs = max(self.positives + self.negatives, 1)
        return (self.dice + self.negatives - self.false_alarms) / pairs

    def choice(self, index: Index) -> Choice:
        """Return the combination at an index of the tables."""
        pair, size, area, gate = index
        grid, (threshold, top) = self.grid, self.grid.pairs[pair]
        return Choice(threshold, top, grid.min_sizes[size], grid.min_areas[area], grid.gates[gate])

    def outcome(self, index: Index) -> Outcome:
        """Return the result of the combination at an index."""
        return Outcome(
            dice_sum=float(self.dice[index]),
            found=int(self.found[index]),
            false_alarms=int(self.false_alarms[index]),
            positives=self.positives,
            negatives=self.negatives,
        )


def add_up(outcomes: Sequence[Outcome]) -> Outcome:
    """Sum outcomes over strips or classes."""
    return Outcome(
        dice_sum=sum(o.dice_sum for o in outcomes),
        found=sum(o.found for o in outcomes),
        false_alarms=sum(o.false_alarms for o in outcomes),
        positives=sum(o.positives for o in outcomes),
        negatives=sum(o.negatives for o in outcomes),
    )
